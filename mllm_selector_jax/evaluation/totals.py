"""What benchmarks make of their questions' marks: F1, accuracy+, circular accuracy."""

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
  """A question with its answer and its mark."""

  question: Question
  prediction: str
  score: float


def group_scores(marked: Sequence[Marked]) -> list[float]:
  """What a task's accuracy is the mean of: a score a question.

  MMBench is circular: a score a group, right only if every rotation is right.
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
  """POPE: accuracy, precision, recall, F1 of yes, and the share of yes answers.

  Where nothing is predicted or nothing is yes, precision, recall and F1 are 0.
  """
  predicted = [read_yes_no(item.prediction) == "yes" for item in marked]
  wanted = [item.question.answers[0].strip().lower() == "yes" for item in marked]
  hits = sum(a and b for a, b in zip(predicted, wanted, strict=True))
  precision = hits / sum(predicted) if any(predicted) else 0.0
  recall = hits / sum(wanted) if any(wanted) else 0.0
  return {
    "count": len(marked),
    "accuracy": statistics.fmean(item.score for item in marked),
    "precision": precision,
    "recall": recall,
    "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
    "yes_ratio": sum(predicted) / len(marked),
  }


def pope_totals(marked: Sequence[Marked]) -> dict[str, Any]:
  """Of all questions, of each category, and F1's mean over categories (LLaVA's)."""
  categories = {
    name: yes_no_totals(items) for name, items in _by_category(marked).items()
  }
  return {
    **yes_no_totals(marked),
    "mean_f1": statistics.fmean(entry["f1"] for entry in categories.values()),
    "categories": categories,
  }


def mme_totals(marked: Sequence[Marked]) -> dict[str, Any]:
  """MME: a category's score is 100 accuracy + 100 accuracy+, a part's their sum.

  Accuracy+ is the share of images of which both questions are right. Images of which
  a question was set aside count by what was asked, and are told as "incomplete".
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
  """MMBench: circular accuracy, that of single questions, circular by category."""
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
  """Accuracy by category, where there is one."""
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
  """The totals of one task's questions, empty where they are but one accuracy."""
  metrics = {item.question.metric for item in marked}
  own = TOTALS.get(metrics.pop()) if len(metrics) == 1 else None
  return (own or category_totals)(marked)
