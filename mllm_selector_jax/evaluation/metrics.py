"""Marks of one prediction against its accepted answers, each in [0, 1].

Every metric is a function `(prediction, answers) -> float`; `METRICS` names them
as evaluation files do. The rules are those of the published benchmarks.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence

# VQA's normalisation: what stands for a number, what is dropped, and the
# contractions that people write without their apostrophes.
DIGIT_WORDS = {
  word: str(number)
  for number, word in enumerate(
    "zero one two three four five six seven eight nine ten".split()
  )
} | {"none": "0"}
ARTICLES = frozenset(("a", "an", "the"))
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
CONTRACTIONS = """
  ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
  hadn't've hasn't haven't he'd he'd've he's how'd how'll how's
  isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
  needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've
  somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's
  something'd something'd've something'll that's there'd there'd've there're
  there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
  weren't what'll what're what's what've when's where'd where's where've who'd
  who'd've who'll who's who've why'll why're why's won't would've wouldn't
  wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
CHARTQA_TOLERANCE = 0.05  # of the target
ANLS_THRESHOLD = 0.5  # similarities below it count 0


def _drop_apostrophes(word: str) -> list[str]:
  """The word with any of its apostrophes, at least one, left out."""
  places = [i for i, letter in enumerate(word) if letter == "'"]
  return [
    "".join(letter for i, letter in enumerate(word) if i not in dropped)
    for count in range(1, len(places) + 1)
    for dropped in itertools.combinations(places, count)
  ]


_RESTORED = {
  written: word for word in CONTRACTIONS for written in _drop_apostrophes(word)
}
_DIGIT_COMMA = re.compile(r"\d,\d")
_LOOSE_PERIOD = re.compile(r"\.(?!\d)")


def normalise_vqa(text: str) -> str:
  """An answer as the VQA evaluation compares it.

  A punctuation mark that touches a space, or any of them in a text with a comma
  between digits, is deleted; elsewhere it becomes a space. Periods not before a
  digit are deleted; number words become digits; articles go; contractions get
  their apostrophes. Source: the VQA evaluation's published answer processing
  (https://visualqa.org/evaluation.html).
  """
  text = text.replace("\n", " ").replace("\t", " ").strip()
  out = text
  for mark in PUNCTUATION:
    # Judged on the text before any mark was replaced, as the published rule is.
    delete = f"{mark} " in text or f" {mark}" in text or _DIGIT_COMMA.search(text)
    out = out.replace(mark, "" if delete else " ")
  out = _LOOSE_PERIOD.sub("", out)
  words = [DIGIT_WORDS.get(word, word) for word in out.lower().split()]
  return " ".join(_RESTORED.get(word, word) for word in words if word not in ARTICLES)


def exact_match(prediction: str, answers: Sequence[str]) -> float:
  """1 if the prediction equals an answer, but for case and outer spaces."""
  wanted = {answer.strip().lower() for answer in answers}
  return float(prediction.strip().lower() in wanted)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
  """VQA's soft accuracy: mean over annotators of min(1, agreeing others / 3).

  With a single answer there are no others, and equality decides.
  """
  predicted = normalise_vqa(prediction)
  equal = [normalise_vqa(answer) == predicted for answer in answers]
  if len(equal) == 1:
    return float(equal[0])
  agreeing = sum(equal)
  return sum(min(1.0, (agreeing - same) / 3) for same in equal) / len(equal)


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
  """DocVQA's ANLS: 1 - the least normalised edit distance, 0 if below 0.5."""
  predicted = " ".join(prediction.lower().split())

  def similarity(answer: str) -> float:
    wanted = " ".join(answer.lower().split())
    longest = max(len(predicted), len(wanted))
    return 1.0 - edit_distance(predicted, wanted) / longest if longest else 1.0

  best = max(similarity(answer) for answer in answers)
  return best if best >= ANLS_THRESHOLD else 0.0


def read_yes_no(text: str) -> str:
  """POPE: "no" if the first sentence holds the word no or not, otherwise "yes"."""
  words = text.split(".")[0].replace(",", " ").lower().split()
  return "no" if "no" in words or "not" in words else "yes"


def yes_no(prediction: str, answers: Sequence[str]) -> float:
  """POPE's accuracy: the prediction read as yes or no equals an answer."""
  return exact_match(read_yes_no(prediction), answers)


_LETTER = re.compile(r"([A-Z])(?:\.(?:\s.*)?)?", re.DOTALL)
_LETTER_SENTENCE = re.compile(r"The answer is ([A-Z])\b")


def read_letter(text: str) -> str | None:
  """The option chosen by "B", "B.", "B. ..." or "The answer is B" (ScienceQA).

  None if there is no such letter, or the sentence stands there more than once.
  """
  whole = _LETTER.fullmatch(text.strip())
  if whole:
    return whole[1]
  found = _LETTER_SENTENCE.findall(text)
  return found[0] if len(found) == 1 else None


def multiple_choice(prediction: str, answers: Sequence[str]) -> float:
  """1 if the option's letter that the prediction names is an answer."""
  letter = read_letter(prediction)
  return float(letter is not None and letter in {x.strip().upper() for x in answers})


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
  "exact_match": exact_match,
  "vqa": vqa_accuracy,
  "chartqa": relaxed_accuracy,
  "anls": anls,
  "yes_no": yes_no,
  "multiple_choice": multiple_choice,
}
