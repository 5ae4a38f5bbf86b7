"""Makes sure that a record's questions have one `<image>` mark for each image."""

import re
from collections.abc import Sequence

from mllm_selector_jax.data.record_schemas.turns import GPT, HUMAN, Turn
from mllm_selector_jax.types import MARK, Picture, RowError

PLACED = "images without a mark, placed first"
REPEATED = "one image marked in several questions, shown once"
# Qwen-VL names the image inside the text.
_TAG = re.compile(r"(?:Picture \d+:[ \t]*)?<img>(.*?)</img>\n?", re.DOTALL)


def take_tags(turns: Sequence[Turn], named: list[Picture]) -> list[Turn]:
  """Replaces `<img>PATH</img>` by a mark, and appends the named image to `named`."""

  def take(match: re.Match) -> str:
    named.append(Picture(match[1].strip()))
    return f"{MARK}\n"

  return [
    turn._replace(text=_TAG.sub(take, turn.text))
    if turn.speaker == HUMAN and "<img>" in turn.text
    else turn
    for turn in turns
  ]


def place_marks(
  turns: Sequence[Turn], pictures: int, blanks: int
) -> tuple[list[Turn], str | None]:
  """Returns the turns with as many marks in the questions as there are images.

  If there are no marks, the images are put before the first question, as TRL, ms-swift
  and InternVL do. If a single image is marked once in each of several questions, only
  its first mark is kept.

  Args:
    turns: the turns of the conversation.
    pictures: the number of the record's images.
    blanks: the number of the record's image fields that are empty.

  Returns:
    The turns, and how they were changed: `PLACED`, `REPEATED` or None.

  Raises:
    RowError: marks and images differ in number, or a mark is in an answer.
  """
  marks = [turn.text.count(MARK) if turn.speaker == HUMAN else 0 for turn in turns]
  total = sum(marks)
  if not pictures:
    if total and blanks:
      raise RowError("missing image", "the record's image is empty")
    if total:
      raise RowError("image marks", f"{total} {MARK} in the questions, no image")
    return list(turns), None
  if any(MARK in turn.text for turn in turns if turn.speaker == GPT):
    raise RowError("image marks", f"{MARK} is in an answer")
  if total == pictures:
    return list(turns), None
  if not total:
    return _put_first(turns, pictures), PLACED
  if pictures == 1 and max(marks) == 1:
    return _keep_first(turns, marks), REPEATED
  raise RowError(
    "image marks", f"{total} {MARK} in the questions, {pictures} images in the record"
  )


def _put_first(turns: Sequence[Turn], pictures: int) -> list[Turn]:
  turns = list(turns)
  first = next((n for n, turn in enumerate(turns) if turn.speaker == HUMAN), None)
  if first is not None:
    turns[first] = turns[first]._replace(
      text=f"{MARK}\n" * pictures + turns[first].text
    )
  return turns


def _keep_first(turns: Sequence[Turn], marks: Sequence[int]) -> list[Turn]:
  first = next(index for index, count in enumerate(marks) if count)
  return [
    turn._replace(text=_remove_mark(turn.text)) if count and index > first else turn
    for index, (turn, count) in enumerate(zip(turns, marks, strict=True))
  ]


def _remove_mark(text: str) -> str:
  before, _, after = text.partition(MARK)
  return before.rstrip("\n") + after if before.strip() else after.lstrip("\n")
