"""Computes the figures that benchmarks report: F1, accuracy+, circular accuracy."""

import collections
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.evaluation.metrics import read_yes_no
from mllm_selector_jax.evaluation.question import Question

MME_PARTS = {
  "perception": (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
  ),
  "cognition": (
    "commonsense_reasoning",
    "numerical_calculation",
    "text_translation",
    "code_reasoning",
  ),
}


class Marked(NamedTuple):
  """A question with the model's answer and its score in [0, 1]."""

  question: Question
  prediction: str
  score: float


def group_scores(marked: Sequence[Marked]) -> list[float]:
  """Returns the scores whose mean is a task's accuracy, one for each question.

  In MMBench, whose evaluation is circular, there is one for each group of rotations of
  a question, which is right only if all rotations are right.
  """
  scores: dict[Any, float] = {}
  for place, item in enumerate(marked):
    circular = item.question.metric == "mmbench" and item.question.group is not None
    key = item.question.group if circular else place
    scores[key] = min(item.score, scores.get(key, 1.0))
  return list(scores.values())


def _by_category(marked: Sequence[Marked]) -> dict[str, list[Marked]]:
  out: dict[str, list[Marked]] = collections.defaultdict(list)
  for item in marked:
    out[item.question.category or "all"].append(item)
  return dict(sorted(out.items()))


def yes_no_totals(marked: Sequence[Marked]) -> dict[str, Any]:
  """POPE: accuracy; precision, recall and F1 of "yes"; and the share of "yes".

  Precision is 0 if "yes" is never predicted, recall if it is never the answer, and F1
  if either is 0.
  """
  predicted = [read_yes_no(item.prediction) == "yes" for item in marked]
  expected = [item.question.answers[0].strip().lower() == "yes" for item in marked]
  hits = sum(a and b for a, b in zip(predicted, expected, strict=True))
  precision = hits / sum(predicted) if any(predicted) else 0.0
  recall = hits / sum(expected) if any(expected) else 0.0
  return {
    "count": len(marked),
    "accuracy": statistics.fmean(item.score for item in marked),
    "precision": precision,
    "recall": recall,
    "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
    "yes_ratio": sum(predicted) / len(marked),
  }


def pope_totals(marked: Sequence[Marked]) -> dict[str, Any]:
  """POPE: totals of all questions and of each category, and LLaVA's mean F1.

  The mean F1 is that over categories.
  """
  categories = {
    name: yes_no_totals(items) for name, items in _by_category(marked).items()
  }
  return {
    **yes_no_totals(marked),
    "mean_f1": statistics.fmean(entry["f1"] for entry in categories.values()),
    "categories": categories,
  }


def mme_totals(marked: Sequence[Marked]) -> dict[str, Any]:
  """MME: the scores of its categories and of its parts, perception and cognition.

  The score of a category is 100 accuracy + 100 accuracy+, and that of a part the sum
  over its categories. Accuracy+ is the share of images of which both questions are
  right. An image of which a question was set aside is counted in "incomplete"; only
  the other question counts to accuracy, and in accuracy+ the image is wrong.
  """
  categories, incomplete = {}, 0
  for name, items in _by_category(marked).items():
    pairs: dict[str | None, list[float]] = collections.defaultdict(list)
    for item in items:
      pairs[item.question.group].append(item.score)
    incomplete += sum(len(scores) != 2 for scores in pairs.values())
    accuracy = statistics.fmean(map(statistics.fmean, pairs.values()))
    plus = statistics.fmean(
      float(len(scores) == 2 and all(scores)) for scores in pairs.values()
    )
    categories[name] = {
      "count": len(items),
      "accuracy": accuracy,
      "accuracy_plus": plus,
      "score": 100 * accuracy + 100 * plus,
    }
  out: dict[str, Any] = {
    part: sum(categories[name]["score"] for name in names if name in categories)
    for part, names in MME_PARTS.items()
  }
  return {**out, "incomplete": incomplete, "categories": categories}


def mmbench_totals(marked: Sequence[Marked]) -> dict[str, Any]:
  """MMBench: accuracy of groups, over all and by category, and of single questions."""
  return {
    "circular": statistics.fmean(group_scores(marked)),
    "single": statistics.fmean(item.score for item in marked),
    "categories": {
      name: {"count": len(scores), "accuracy": statistics.fmean(scores)}
      for name, items in _by_category(marked).items()
      for scores in [group_scores(items)]
    },
  }


def category_totals(marked: Sequence[Marked]) -> dict[str, Any]:
  """Computes the accuracy of each category; empty if no question has one."""
  if all(item.question.category is None for item in marked):
    return {}
  return {
    "categories": {
      name: {
        "count": len(items),
        "accuracy": statistics.fmean(item.score for item in items),
      }
      for name, items in _by_category(marked).items()
    }
  }


TOTALS: dict[str, Callable[[Sequence[Marked]], dict[str, Any]]] = {
  "yes_no": pope_totals,
  "mme": mme_totals,
  "mmbench": mmbench_totals,
}


def make_totals(marked: Sequence[Marked]) -> dict[str, Any]:
  """Computes the totals of a task; empty if its accuracy is the only figure."""
  metrics = {item.question.metric for item in marked}
  benchmark_totals = TOTALS.get(metrics.pop()) if len(metrics) == 1 else None
  return (benchmark_totals or category_totals)(marked)
