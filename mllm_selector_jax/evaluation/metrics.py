"""Marks of one prediction against its accepted answers, each in [0, 1].

Every metric is a function `(prediction, answers) -> float`; `METRICS` names them
as evaluation files do. The rules are those of the published benchmarks; what a
benchmark makes of its questions' marks is in `totals`.
"""

import math
import re
import string
from collections.abc import Callable, Sequence

from mllm_selector_jax.evaluation.vqa_text import normalise_textvqa, normalise_vqa

CHARTQA_TOLERANCE = 0.05  # of the target
ANLS_THRESHOLD = 0.5  # similarities below it count 0


def exact_match(prediction: str, answers: Sequence[str]) -> float:
  """1 if the prediction equals an answer, but for case and outer spaces."""
  wanted = {answer.strip().lower() for answer in answers}
  return float(prediction.strip().lower() in wanted)


def _soft_accuracy(predicted: str, answers: Sequence[str]) -> float:
  equal = [answer == predicted for answer in answers]
  if len(equal) == 1:
    return float(equal[0])
  agreeing = sum(equal)
  return sum(min(1.0, (agreeing - same) / 3) for same in equal) / len(equal)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
  """VQA's soft accuracy: mean over annotators of min(1, agreeing others / 3).

  With a single answer there are no others, and equality decides.
  """
  return _soft_accuracy(normalise_vqa(prediction), [*map(normalise_vqa, answers)])


def textvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
  """VQA's soft accuracy with the spelling of TextVQA's and VizWiz's evaluations."""
  return _soft_accuracy(
    normalise_textvqa(prediction), [*map(normalise_textvqa, answers)]
  )


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain_match(prediction: str, answers: Sequence[str]) -> float:
  """GQA: 1 if the prediction equals an answer, but for case and punctuation."""

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
  """ChartQA's relaxed accuracy: numbers within 5 % of the answer are right.

  A trailing % divides by 100. Anything but two numbers, or an answer of 0, is
  compared as text, whatever its case.
  """

  def right(answer: str) -> bool:
    number, target = _to_number(prediction), _to_number(answer)
    if number is not None and target:
      return abs(number - target) / abs(target) <= CHARTQA_TOLERANCE
    return prediction.strip().lower() == answer.strip().lower()

  return float(any(right(answer) for answer in answers))


def edit_distance(left: str, right: str) -> int:
  """Levenshtein distance: fewest insertions, deletions and substitutions."""
  row = list(range(len(right) + 1))
  for i, first in enumerate(left, 1):
    above, row[0] = row[0], i
    for j, second in enumerate(right, 1):
      best = min(row[j] + 1, row[j - 1] + 1, above + (first != second))
      above, row[j] = row[j], best
  return row[-1]


def anls(prediction: str, answers: Sequence[str]) -> float:
  """DocVQA's ANLS: 1 - the least normalised edit distance, 0 if below 0.5.

  Distances are of texts with single spaces, lengths of the texts as they are.
  """
  predicted = " ".join(prediction.lower().split())

  def distance(answer: str) -> float:
    wanted = " ".join(answer.lower().split())
    longest = max(len(prediction.upper()), len(answer.upper()))
    return edit_distance(predicted, wanted) / longest if longest else 0.0

  best = 1.0 - min(distance(answer) for answer in answers)
  return best if best >= ANLS_THRESHOLD else 0.0


def read_yes_no(text: str) -> str:
  """POPE: "no" if the first sentence holds the word no or not, otherwise "yes"."""
  words = text.split(".")[0].replace(",", " ").lower().split()
  return "no" if "no" in words or "not" in words else "yes"


def yes_no(prediction: str, answers: Sequence[str]) -> float:
  """POPE's accuracy: the prediction read as yes or no equals an answer."""
  return exact_match(read_yes_no(prediction), answers)


def read_mme(text: str) -> str | None:
  """MME: the yes or no that a text begins with, in its first four characters."""
  text = text.lower().strip().replace(".", "")
  if len(text) == 1:
    return {"y": "yes", "n": "no"}.get(text)
  return next((word for word in ("yes", "no") if word in text[:4]), None)


def mme_match(prediction: str, answers: Sequence[str]) -> float:
  """MME: 1 if the prediction, read as yes or no, is the answer."""
  wanted = {answer.lower().strip().replace(".", "") for answer in answers}
  return float(read_mme(prediction) in wanted)


_FIRST_LETTER = re.compile(r"([A-Z])\.")
_LETTER_SENTENCE = re.compile(r"The answer is ([A-Z]).")


def read_letter(text: str) -> str | None:
  """The option chosen by "B", "b", "B. ..." or "The answer is B." (ScienceQA).

  None if there is no such letter, or the sentence stands there more than once. The
  sentence is ScienceQA's own rule: any character may follow the letter, and one must.
  """
  text = text.strip()
  if len(text) == 1 and text.upper() in string.ascii_uppercase:
    return text.upper()
  if first := _FIRST_LETTER.match(text):
    return first[1]
  found = _LETTER_SENTENCE.findall(text)
  return found[0] if len(found) == 1 else None


def multiple_choice(prediction: str, answers: Sequence[str]) -> float:
  """1 if the option's letter that the prediction names is an answer."""
  letter = read_letter(prediction)
  return float(letter is not None and letter in {x.strip().upper() for x in answers})


def ai2d_match(prediction: str, answers: Sequence[str]) -> float:
  """AI2D: the letter before a period at the start, otherwise a bare letter."""
  first = _FIRST_LETTER.match(prediction.lstrip())
  return plain_match(first[1] if first else prediction, answers)


# What may stand around MMBench's letter, in the order in which it is looked for.
_AROUND = [
  ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."),
  (":", ""), (":", ","), (":", "."), (":", ")"), (":", ")."),
]  # fmt: skip
MMBENCH_LETTERS = "ABCDE"


def infer_option(text: str, choices: Sequence[str]) -> str | None:
  """MMBench: the option that a text names by its letter or holds the words of.

  A letter is a word of its own, bare or with one of the usual marks around it, and
  the only one of its kind. A bare A in more than three words may be an article and
  does not count. Words are looked for if no letter is found; one option alone must
  be held. None where neither says which.
  """
  words = text.split()
  for before, after in [("", ""), *_AROUND]:
    found = [x for x in MMBENCH_LETTERS if f"{before}{x}{after}" in words]
    article = (before, after) == ("", "") and found == ["A"] and len(words) > 3
    if len(found) == 1 and not article:
      return found[0]
  low = text.lower()
  held = [
    letter
    for letter, choice in zip(MMBENCH_LETTERS, choices, strict=False)
    if choice.lower() in low
  ]
  return held[0] if len(held) == 1 else None


def mmbench_match(
  prediction: str, answers: Sequence[str], choices: Sequence[str] = ()
) -> float:
  """MMBench: 1 if the option that the prediction stands for is the answer."""
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
LETTERED = frozenset(("multiple_choice", "ai2d", "mmbench"))  # answers are letters
ANNOTATED = frozenset(("vqa", "textvqa"))  # an answer an annotator, alike or not


def mark(
  metric: str,
  prediction: str,
  answers: Sequence[str],
  choices: Sequence[str] | None = None,
) -> float:
  """The mark by a metric of `METRICS`; only MMBench's looks at the options."""
  if metric == "mmbench":
    return mmbench_match(prediction, answers, choices or ())
  return METRICS[metric](prediction, answers)
