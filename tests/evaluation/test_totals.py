"""Benchmarks' own totals against plain counts."""

import collections

import numpy as np
import pytest
from sklearn import metrics as sklearn

from mllm_selector_jax.evaluation import totals
from mllm_selector_jax.evaluation.asking import summarise
from mllm_selector_jax.evaluation.metrics import mark
from mllm_selector_jax.evaluation.question import Question
from mllm_selector_jax.evaluation.totals import Marked


def make(id, metric, prediction, answer, category=None, group=None, choices=None):
  question = Question(id, "t", (), "?", (answer,), metric, choices, category, group)
  return Marked(question, prediction, mark(metric, prediction, (answer,), choices))


def draw_pope(rng, count=60):
  said = ["yes", "No, there is none.", "Yes. Not bad", "not at all", "maybe"]
  return [
    make(i, "yes_no", said[rng.integers(5)], ("yes", "no")[rng.integers(2)], kind)
    for i in range(count)
    for kind in [("random", "popular", "adversarial")[rng.integers(3)]]
  ]


@pytest.mark.parametrize("seed", range(3))
def test_pope_equals_scikit_learn(seed):
  marked = draw_pope(np.random.default_rng(seed))
  found = totals.make_totals(marked)
  parts = {"": marked} | {
    kind: [item for item in marked if item.question.category == kind]
    for kind in found["categories"]
  }
  for kind, items in parts.items():
    own = found["categories"][kind] if kind else found
    wanted = [item.question.answers[0] == "yes" for item in items]
    predicted = [item.prediction in ("yes", "Yes. Not bad", "maybe") for item in items]
    assert own["accuracy"] == pytest.approx(sklearn.accuracy_score(wanted, predicted))
    assert own["precision"] == pytest.approx(sklearn.precision_score(wanted, predicted))
    assert own["recall"] == pytest.approx(sklearn.recall_score(wanted, predicted))
    assert own["f1"] == pytest.approx(sklearn.f1_score(wanted, predicted))
    assert own["yes_ratio"] == pytest.approx(np.mean(predicted))
  each = [entry["f1"] for entry in found["categories"].values()]
  assert found["mean_f1"] == pytest.approx(np.mean(each))


@pytest.mark.parametrize("prediction, answer", [("no", "no"), ("no", "yes")])
def test_pope_without_a_yes_has_no_division_by_zero(prediction, answer):
  found = totals.make_totals([make(0, "yes_no", prediction, answer)])
  assert (found["precision"], found["recall"], found["f1"]) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_mme_adds_accuracy_and_accuracy_plus(seed):
  rng = np.random.default_rng(seed)
  marked = []
  for category in ("color", "count", "OCR", "code_reasoning"):
    for image in range(6):
      for answer in ("yes", "no"):
        said = ("Yes", "no.", "I do")[rng.integers(3)]
        group = f"{category}/{image}"
        id = f"{group}-{answer}"
        marked.append(make(id, "mme", said, answer, category, group))
  rng.shuffle(marked := list(marked))
  marked = [Marked(*item) for item in marked]
  found = totals.make_totals(marked)
  expected = {}
  for category in ("color", "count", "OCR", "code_reasoning"):
    scores = collections.defaultdict(list)
    for item in marked:
      if item.question.category == category:
        scores[item.question.group].append(item.score)
    accuracy = np.mean([np.mean(pair) for pair in scores.values()])
    plus = np.mean([sum(pair) == 2 for pair in scores.values()])
    expected[category] = 100 * accuracy + 100 * plus
    assert found["categories"][category]["score"] == pytest.approx(expected[category])
  thinking = expected.pop("code_reasoning")
  assert found["perception"] == pytest.approx(sum(expected.values()))
  assert found["cognition"] == pytest.approx(thinking)
  assert found["incomplete"] == 0
  assert totals.make_totals(marked[1:])["incomplete"] == 1


def test_mmbench_is_right_only_if_every_rotation_is():
  choices = ("cow", "cat", "dog")
  marked = [
    make(1, "mmbench", "B", "B", "x", "1", choices),
    make(1_000_001, "mmbench", "A", "A", "x", "1", choices),
    make(2, "mmbench", "B", "B", "y", "2", choices),
    make(1_000_002, "mmbench", "B", "A", "y", "2", choices),
    make(3, "mmbench", "cat", "B", "y", "3", choices),
  ]
  found = totals.make_totals(marked)
  assert found["circular"] == pytest.approx(2 / 3)
  assert found["single"] == pytest.approx(4 / 5)
  assert found["categories"] == {
    "x": {"count": 1, "accuracy": 1},
    "y": {"count": 2, "accuracy": 0.5},
  }
  entry = summarise(marked)["tasks"]["t"]
  assert (entry["count"], entry["correct"]) == (3, 2)
  assert entry["value"] == found["circular"] and entry["totals"] == found
  assert totals.make_totals(marked[::-1]) == found


def test_categories_are_means_and_no_category_is_no_total():
  marked = [
    make(1, "chartqa", "14", "14", "human"),
    make(2, "chartqa", "15", "14", "human"),
    make(3, "chartqa", "7", "7", "augmented"),
  ]
  assert totals.make_totals(marked) == {
    "categories": {
      "augmented": {"count": 1, "accuracy": 1},
      "human": {"count": 2, "accuracy": 0.5},
    }
  }
  assert totals.make_totals([make(1, "anls", "a", "a")]) == {}
  assert "totals" not in summarise([make(1, "anls", "a", "a")])["tasks"]["t"]
