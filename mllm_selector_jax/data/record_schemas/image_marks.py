"""Where a record's images stand in its text: at `<image>`, one for each."""

import re
from collections.abc import Sequence

from mllm_selector_jax.data.record_schemas.turns import GPT, HUMAN, Turn
from mllm_selector_jax.types import MARK, Picture, RowError

PLACED = "images without a mark, placed first"
REPEATED = "one image marked in several questions, shown once"
# Qwen-VL's own form names the image in the text.
_TAG = re.compile(r"(?:Picture \d+:[ \t]*)?<img>(.*?)</img>\n?", re.DOTALL)


def take_tags(turns: Sequence[Turn], named: list[Picture]) -> list[Turn]:
  """Turns `<img>PATH</img>` into a mark, and takes the image that it names."""

  def mark(match: re.Match) -> str:
    named.append(Picture(match[1].strip()))
    return f"{MARK}\n"

  return [
    turn._replace(text=_TAG.sub(mark, turn.text))
    if turn.speaker == HUMAN and "<img>" in turn.text
    else turn
    for turn in turns
  ]


def place_marks(
  turns: Sequence[Turn], pictures: int, blanks: int
) -> tuple[list[Turn], str | None]:
  """The turns with as many marks in the questions as there are images.

  Images without any mark stand first, as TRL, ms-swift and InternVL have it. One image
  that is marked in several questions, once in each, stands at its first mark.

  Args:
    turns: of the conversation.
    pictures: images of the record.
    blanks: images that the record leaves empty.

  Returns:
    The turns, and what was done to them: `PLACED`, `REPEATED` or None.

  Raises:
    RowError: marks and images differ in number.
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
    raise RowError("image marks", f"{MARK} stands in an answer")
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
  place = next((n for n, turn in enumerate(turns) if turn.speaker == HUMAN), None)
  if place is not None:
    turns[place] = turns[place]._replace(
      text=f"{MARK}\n" * pictures + turns[place].text
    )
  return turns


def _keep_first(turns: Sequence[Turn], marks: Sequence[int]) -> list[Turn]:
  first = next(place for place, count in enumerate(marks) if count)
  return [
    turn._replace(text=_without_mark(turn.text)) if count and place > first else turn
    for place, (turn, count) in enumerate(zip(turns, marks, strict=True))
  ]


def _without_mark(text: str) -> str:
  before, _, after = text.partition(MARK)
  return before.rstrip("\n") + after if before.strip() else after.lstrip("\n")
