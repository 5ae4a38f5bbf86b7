"""Metrics: scores in [0, 1] of one prediction against its accepted answers.

Every metric is a function `(prediction, answers) -> float`. `METRICS` maps the names in
evaluation files to functions. The rules are those of the published benchmarks, and
`totals` computes what a benchmark reports from the scores of its questions.
"""

import math
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

from mllm_selector_jax import plugins
from mllm_selector_jax.evaluation.vqa_text import normalise_textvqa, normalise_vqa
from mllm_selector_jax.types import InputError

CHARTQA_TOLERANCE = 0.05  # the relative error up to which a number is right
ANLS_THRESHOLD = 0.5  # the similarity below which the score is 0


def exact_match(prediction: str, answers: Sequence[str]) -> float:
  """Returns 1 if the prediction equals an answer, except for case and outer spaces."""
  accepted = {answer.strip().lower() for answer in answers}
  return float(prediction.strip().lower() in accepted)


def _soft_accuracy(predicted: str, answers: Sequence[str]) -> float:
  equal = [answer == predicted for answer in answers]
  if len(equal) == 1:
    return float(equal[0])
  agreeing = sum(equal)
  return sum(min(1.0, (agreeing - same) / 3) for same in equal) / len(equal)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
  """Returns VQA's soft accuracy.

  It is the mean over annotators of min(1, n / 3), where n of the other annotators gave
  the prediction as their answer. With a single answer, it is 1 if the prediction equals
  it. Source: https://visualqa.org/evaluation.html.
  """
  return _soft_accuracy(normalise_vqa(prediction), [*map(normalise_vqa, answers)])


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
  """Returns the soft accuracy, with texts normalised as for TextVQA and VizWiz."""
  return _soft_accuracy(
    normalise_textvqa(prediction), [*map(normalise_textvqa, answers)]
  )


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain_match(prediction: str, answers: Sequence[str]) -> float:
  """GQA: returns 1 if the prediction equals an answer, except case and punctuation."""

  def strip(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION).strip()

  return float(strip(prediction) in {strip(answer) for answer in answers})


def _to_number(text: str) -> float | None:
  text = text.strip()
  try:
    number = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
  except ValueError:
    return None
  return number if math.isfinite(number) else None


def relaxed_accuracy(prediction: str, answers: Sequence[str]) -> float:
  """ChartQA: returns 1 if the prediction is a number within 5 % of an answer.

  A number with a trailing % is divided by 100. If the prediction or the answer is not a
  number, or the answer is 0, they are compared as texts, ignoring case.
  """

  def right(answer: str) -> bool:
    number, target = _to_number(prediction), _to_number(answer)
    if number is not None and target:
      return abs(number - target) / abs(target) <= CHARTQA_TOLERANCE
    return prediction.strip().lower() == answer.strip().lower()

  return float(any(right(answer) for answer in answers))


def edit_distance(left: str, right: str) -> int:
  """Returns the Levenshtein distance, by insertions, deletions and substitutions."""
  row = list(range(len(right) + 1))
  for i, first in enumerate(left, 1):
    above, row[0] = row[0], i
    for j, second in enumerate(right, 1):
      best = min(row[j] + 1, row[j - 1] + 1, above + (first != second))
      above, row[j] = row[j], best
  return row[-1]


def anls(prediction: str, answers: Sequence[str]) -> float:
  """DocVQA: returns the ANLS, 1 - the least normalised edit distance, or 0 below 0.5.

  As in the published evaluation, distances are those of the texts in lower case with
  runs of spaces collapsed, and they are divided by the length of the original texts.
  """
  predicted = " ".join(prediction.lower().split())

  def distance(answer: str) -> float:
    accepted = " ".join(answer.lower().split())
    longest = max(len(prediction.upper()), len(answer.upper()))
    return edit_distance(predicted, accepted) / longest if longest else 0.0

  best = 1.0 - min(distance(answer) for answer in answers)
  return best if best >= ANLS_THRESHOLD else 0.0


def read_yes_no(text: str) -> str:
  """POPE: returns "no" if the first sentence has the word no or not, else "yes"."""
  words = text.split(".")[0].replace(",", " ").lower().split()
  return "no" if "no" in words or "not" in words else "yes"


def yes_no(prediction: str, answers: Sequence[str]) -> float:
  """POPE: returns 1 if the prediction, read as yes or no, equals an answer."""
  return exact_match(read_yes_no(prediction), answers)


def read_mme(text: str) -> str | None:
  """MME: returns the "yes" or "no" in the first four characters of a text."""
  text = text.lower().strip().replace(".", "")
  if len(text) == 1:
    return {"y": "yes", "n": "no"}.get(text)
  return next((word for word in ("yes", "no") if word in text[:4]), None)


def mme_match(prediction: str, answers: Sequence[str]) -> float:
  """MME: returns 1 if the prediction, read as yes or no, equals an answer."""
  accepted = {answer.lower().strip().replace(".", "") for answer in answers}
  return float(read_mme(prediction) in accepted)


_FIRST_LETTER = re.compile(r"([A-Z])\.")
_LETTER_SENTENCE = re.compile(r"The answer is ([A-Z]).")


def read_letter(text: str) -> str | None:
  """ScienceQA: returns the letter in "B", "b", "B. ..." or "The answer is B.".

  The result is None if there is no such letter, or if the sentence occurs more than
  once. As in ScienceQA's evaluation, some character, which need not be a period, has to
  follow the letter in the sentence.
  """
  text = text.strip()
  if len(text) == 1 and text.upper() in string.ascii_uppercase:
    return text.upper()
  if first := _FIRST_LETTER.match(text):
    return first[1]
  letters = _LETTER_SENTENCE.findall(text)
  return letters[0] if len(letters) == 1 else None


def multiple_choice(prediction: str, answers: Sequence[str]) -> float:
  """Returns 1 if the letter that the prediction names is an answer."""
  letter = read_letter(prediction)
  return float(letter is not None and letter in {x.strip().upper() for x in answers})


def ai2d_match(prediction: str, answers: Sequence[str]) -> float:
  """AI2D: returns 1 if the prediction is or begins with the letter of an answer.

  A letter at the beginning of a longer text has to be followed by a period.
  """
  first = _FIRST_LETTER.match(prediction.lstrip())
  return plain_match(first[1] if first else prediction, answers)


# MMBench: the marks before and after a letter, in the order in which they are tried.
_AROUND = [
  ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."),
  (":", ""), (":", ","), (":", "."), (":", ")"), (":", ")."),
]  # fmt: skip
MMBENCH_LETTERS = "ABCDE"


def infer_option(text: str, choices: Sequence[str]) -> str | None:
  """MMBench: returns the letter of the option that a text names or contains.

  The letter has to be a word of its own, bare or with one of the usual marks around
  it, and the only such letter. A bare A in a text of more than three words does not
  count, as it may be an article. If no letter is found, the text has to contain exactly
  one of the options. Otherwise the result is None.
  """
  words = text.split()
  for before, after in [("", ""), *_AROUND]:
    letters = [x for x in MMBENCH_LETTERS if f"{before}{x}{after}" in words]
    article = (before, after) == ("", "") and letters == ["A"] and len(words) > 3
    if len(letters) == 1 and not article:
      return letters[0]
  lower = text.lower()
  contained = [
    letter
    for letter, choice in zip(MMBENCH_LETTERS, choices, strict=False)
    if choice.lower() in lower
  ]
  return contained[0] if len(contained) == 1 else None


def mmbench_match(
  prediction: str, answers: Sequence[str], choices: Sequence[str] = ()
) -> float:
  """MMBench: returns 1 if the option found by `infer_option` is the answer."""
  return float(infer_option(prediction, choices) in answers)


METRICS: dict[str, Callable[..., float]] = {
  "exact_match": exact_match,
  "vqa": vqa_accuracy,
  "textvqa": textvqa_accuracy,
  "gqa": plain_match,
  "chartqa": relaxed_accuracy,
  "anls": anls,
  "yes_no": yes_no,
  "mme": mme_match,
  "multiple_choice": multiple_choice,
  "ai2d": ai2d_match,
  "mmbench": mmbench_match,
}


def _adapt(name: str, plugin: Any) -> Callable[..., float]:
  """Makes a metric of a plug-in's function, and checks the scores that it returns."""
  if not callable(plugin):
    raise TypeError(
      f"it is a {type(plugin).__name__}; a metric is a function (prediction, answers)"
      " -> float."
    )

  def metric(prediction: str, answers: Sequence[str]) -> float:
    with plugins.calling(f"the metric {name}"):
      score = float(plugin(prediction, answers))
    if not 0 <= score <= 1:
      raise InputError(
        f"The metric {name} returned {score}; a score must be from 0 to 1."
      )
    return score

  return metric


LOOKUP = plugins.Lookup("metric", f"{plugins.PACKAGE}.metrics", METRICS, _adapt)
LETTERED = frozenset(("multiple_choice", "ai2d", "mmbench"))  # answers are letters
ANNOTATED = frozenset(("vqa", "textvqa"))  # one answer of each annotator, maybe empty


def mark(
  metric: str,
  prediction: str,
  answers: Sequence[str],
  choices: Sequence[str] | None = None,
) -> float:
  """Scores a prediction by the metric of a name.

  Args:
    metric: a key of `METRICS`, or a plug-in's metric that evaluate.metrics names.
    prediction: the answer of the model.
    answers: the accepted answers.
    choices: the options of a multiple choice, which only "mmbench" reads.

  Returns:
    A score in [0, 1].
  """
  if metric == "mmbench":
    return mmbench_match(prediction, answers, choices or ())
  return LOOKUP.find(metric, "evaluate.metrics", "has")(prediction, answers)
