"""Evaluation of a tiny model: forms, counts, and what must not matter."""

import collections
import json
import math

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from PIL import Image

from benchmarks.pool_columns import bind_images
from mllm_selector_jax import sharding
from mllm_selector_jax.data.tokens.conversation import TEMPLATES, Encoder
from mllm_selector_jax.evaluation import intervals
from mllm_selector_jax.evaluation.asking import evaluate_model, summarise
from mllm_selector_jax.evaluation.question import QuestionImage
from mllm_selector_jax.evaluation.tasks import Aside, Question
from mllm_selector_jax.evaluation.totals import Marked
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.types import InputError
from tests.models.tiny import make_base

NEW = 4
WORDS = "red", "is it", "how many"
ABSENT, BROKEN, SECRET = (
  (QuestionImage(name),) for name in ("absent.png", "broken.png", "../secret.png")
)


class Model:
  """A tiny model, read as a base directory is, and a folder of images."""

  def __init__(self, folder):
    base = make_base(folder / "base")
    tokenizer, self.options = huggingface.read_processor(base)
    self.config = huggingface.read_config(base)
    self.params = huggingface.read_params(base, self.config)
    self.encoder = Encoder(
      tokenizer,
      TEMPLATES["vicuna_v1"],
      bind_images(self.config, self.options),
      max_length=256,
      system="",
    )
    self.images = str(folder / "images")
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
      pixels = rng.integers(0, 256, (20, 30 + number, 3)).astype(np.uint8)
      Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")

  def evaluate(self, questions, images=None, **kwargs):
    options = {"batch_size": 4, "max_new_tokens": NEW} | kwargs
    return evaluate_model(
      self.config,
      self.params,
      self.encoder,
      images or self.images,
      questions,
      **options,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  return Model(tmp_path_factory.mktemp("model"))


def make_questions():
  """Ten questions, by turns over three images and text alone."""
  return [
    Question(
      id=f"q{i}",
      task="seen" if i % 4 else "text",
      images=(QuestionImage(f"{i % 4 - 1}.png"),) if i % 4 else (),
      question=f"{WORDS[i % 3]} {i}",
      answers=("red",),
    )
    for i in range(10)
  ]


@pytest.fixture(scope="module")
def asked(model):
  return model.evaluate(make_questions())


def test_predictions_have_the_promised_form_in_the_questions_order(asked):
  results, predictions = asked
  questions = make_questions()
  assert [line["id"] for line in predictions] == [item.id for item in questions]
  for line, question in zip(predictions, questions, strict=True):
    assert list(line) == [
      *("id", "task", "images", "question", "answers", "prediction", "score")
    ]
    assert line["question"] == question.question
    assert line["images"] == [image.name for image in question.images]
    assert line["answers"] == ["red"]
  assert json.loads(json.dumps(predictions)) == predictions
  assert json.loads(json.dumps(results, allow_nan=False)) == results


def test_the_answers_to_the_own_predictions_are_right(model, asked):
  # Half of the questions are given what the model says as their answer.
  questions = [
    question._replace(answers=(line["prediction"] if place % 2 else "no such",))
    for place, (question, line) in enumerate(
      zip(make_questions(), asked[1], strict=True)
    )
  ]
  results, predictions = model.evaluate(questions)
  assert [line["score"] for line in predictions] == [0.0, 1.0] * 5
  seen, text = results["tasks"]["seen"], results["tasks"]["text"]
  assert (seen["metric"], seen["count"], seen["correct"]) == ("exact_match", 7, 5)
  assert (text["count"], text["correct"], text["value"]) == (3, 0, 0)
  assert results["macro"]["value"] == pytest.approx(5 / 14)
  assert results["overall"]["value"] == 0.5
  assert results["overall"]["count"] == 10


def test_predictions_tell_questions_and_images_apart(asked):
  assert len({line["prediction"] for line in asked[1]}) >= 5


def test_the_batch_size_does_not_matter(model, asked):
  assert model.evaluate(make_questions(), batch_size=1) == asked


def test_the_order_of_the_questions_does_not_matter(model, asked):
  results, predictions = model.evaluate(make_questions()[::-1])
  assert results == asked[0]
  assert predictions == asked[1][::-1]


def test_a_mesh_does_not_matter(model, asked):
  with sharding.use(sharding.make_mesh(data=4, fsdp=2)) as mesh:
    params = model.params
    model.params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    try:
      assert model.evaluate(make_questions(), mesh=mesh) == asked
    finally:
      model.params = params


def test_unusable_questions_are_set_aside_and_counted(model, asked):
  good = make_questions()
  bad = [
    Question("b0", "seen", ABSENT, "red?", ("red",)),
    Question("b1", "seen", BROKEN, "red?", ("red",)),
    Question("b2", "other", SECRET, "red?", ("red",)),
    Question("b3", "text", (), "red " * 400, ("red",)),
  ]
  mixed = [bad[0], *good[:5], bad[1], bad[2], *good[5:], bad[3]]
  before = Aside("b4", None, "malformed", "eval.jsonl, row 9 at byte 4: no")
  results, predictions = model.evaluate(mixed, aside=[before])
  assert predictions == asked[1]
  for part in "tasks", "macro", "overall":
    assert results[part] == asked[0][part]
  aside = results["aside"]
  assert aside["count"] == 5
  assert aside["reasons"] == {
    "malformed": 1,
    "missing image": 1,
    "too long": 1,
    "unreadable image": 1,
    "unsafe path": 1,
  }
  assert [item["id"] for item in aside["questions"]] == ["b4", "b0", "b1", "b2", "b3"]
  assert aside["questions"][1]["task"] == "seen"
  assert "absent.png" in aside["questions"][1]["detail"]
  assert "broken.png" in aside["questions"][2]["detail"]
  assert len(predictions) + aside["count"] == len(mixed) + 1


def test_nothing_left_to_ask_is_refused_with_the_reasons(model):
  absent = [Question(i, "a", ABSENT, "red?", ("red",)) for i in range(2)]
  with pytest.raises(InputError, match=r"missing image: 2.*absent\.png"):
    model.evaluate(absent)
  with pytest.raises(InputError, match="missing image"):
    evaluate_model(model.config, model.params, model.encoder, None, absent)
  with pytest.raises(InputError, match="No evaluation question"):
    model.evaluate([])


@pytest.mark.parametrize("setting", ["batch_size", "max_new_tokens"])
def test_settings_below_one_are_refused(model, setting):
  with pytest.raises(InputError, match=f"{setting} is 0"):
    model.evaluate(make_questions(), **{setting: 0})


def test_images_may_lie_in_several_folders(model, asked, tmp_path):
  first, second = tmp_path / "first", tmp_path / "second"
  first.mkdir()
  second.mkdir()
  for number in range(3):
    target = first if number == 1 else second
    with open(f"{model.images}/{number}.png", "rb") as file:
      (target / f"{number}.png").write_bytes(file.read())
  assert model.evaluate(make_questions(), [str(first), str(second)]) == asked


def test_progress_grows_to_the_number_of_questions(model):
  calls = []
  absent = Question("b", "seen", ABSENT, "red?", ("red",))
  model.evaluate(
    [*make_questions(), absent],
    progress=lambda done, total: calls.append((done, total)),
  )
  done = [count for count, _ in calls]
  assert done == sorted(done) and len(calls) == 4
  assert calls[0] == (0, 11) and calls[-1] == (11, 11)


def test_the_plain_templates_closing_ends_an_answer(model):
  plain = Encoder(
    model.encoder.tokenizer,
    TEMPLATES["plain"],
    model.encoder.images,
    max_length=256,
    system="how many " * 3,  # as long as the other prompts: compiled already
  )
  questions = [Question("a", "t", (QuestionImage("0.png"),), "", ("red",))]
  whole = plain, model.images, questions, 1, NEW
  _, (line,) = evaluate_model(model.config, model.params, *whole)
  assert "\n" not in line["prediction"]


def test_summarise_equals_its_parts():
  rng = np.random.default_rng(0)
  marked = []
  for task, metric in ("a", "exact_match"), ("b", "vqa"):
    for i in range(20):
      score = float(rng.integers(0, 2)) if task == "a" else round(rng.random(), 1)
      question = Question(i, task, (), "?", ("x",), metric)
      marked.append(Marked(question, "y", score))
  scores = collections.defaultdict(list)
  for question, _, score in marked:
    scores[question.task].append(score)
  results = summarise(marked)
  assert list(results) == ["tasks", "macro", "overall", "aside"]
  for task, values in scores.items():
    entry = results["tasks"][task]
    assert list(entry) == ["metric", "count", "correct", "value", "low", "high"]
    assert entry["correct"] == pytest.approx(math.fsum(values))
    expected = intervals.score_interval(values)
    assert (entry["value"], entry["low"], entry["high"]) == expected
  assert isinstance(results["tasks"]["a"]["correct"], int)
  assert results["tasks"]["b"]["metric"] == "vqa"
  assert results["macro"] == intervals.macro_interval(scores)._asdict()
  assert results["aside"] == {"count": 0, "reasons": {}, "questions": []}
  assert summarise(marked[::-1])["tasks"].keys() == results["tasks"].keys()
