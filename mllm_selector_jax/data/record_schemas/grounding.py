"""Reads the objects and boxes that a record states beside its text.

This is the form of ms-swift: the field `objects` lists names and boxes, and in the text
`<ref-object>` stands for the next name, and `<bbox>` for the next box. How a box is
written into the text depends on the base, see `data.tokens.box_forms`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.data.record_schemas.turns import Turn
from mllm_selector_jax.types import MARK, RowError

FIELD = "objects"
NAME_MARK, BOX_MARK = "<ref-object>", "<bbox>"
# What a side of the image counts in the coordinates of each `bbox_type`; None for as
# many as it has pixels. The names with an underscore are those of ms-swift 2.
_SCALES = {
  **{"real": None, "norm1": 1.0, "norm_1": 1.0},
  **{"norm1000": 1000.0, "norm_1000": 1000.0},
}


class Box(NamedTuple):
  """A box, or a point.

  Attributes:
    corners: x and y of a point, or of the upper left and the lower right corner.
    scale: what a side of the image counts in these coordinates; None for pixels.
    image: the number of its image in the row, from 0.
  """

  corners: tuple[float, ...]
  scale: float | None
  image: int


class Grounding(NamedTuple):
  """The names and boxes of a record, in the order of their marks in the text.

  Attributes:
    names: what the marks `NAME_MARK` stand for.
    boxes: what the marks `BOX_MARK` stand for.
  """

  names: tuple[str, ...]
  boxes: tuple[Box, ...]


def read_grounding(
  value: Mapping[str, Any], turns: Sequence[Turn], images: int
) -> Grounding | None:
  """Reads the names and boxes that the turns of a record have marks for.

  Args:
    value: the record.
    turns: of its conversation.
    images: the number of its images.

  Returns:
    None if the record states none, or if no turn has a mark for one.

  Raises:
    RowError: marks and objects differ in number, or a box is none.
  """
  stated = value.get(FIELD)
  if not stated:
    return None
  counts = {
    mark: sum(turn.text.count(mark) for turn in turns) for mark in (NAME_MARK, BOX_MARK)
  }
  if not any(counts.values()):
    return None
  columns = _read_columns(stated)
  names = tuple(map(_check_name, _list(columns, "ref", "caption")))
  corners = _list(columns, "bbox")
  for mark, found in ((NAME_MARK, len(names)), (BOX_MARK, len(corners))):
    # Writers also list names and boxes that the text has no mark for.
    if counts[mark] and counts[mark] != found:
      raise RowError(
        "boxes", f"{counts[mark]} {mark} in the text, {found} in the record's {FIELD}"
      )
  if counts[BOX_MARK] and not images:
    raise RowError("boxes", f"{FIELD} has boxes, and the record has no image")
  if not counts[BOX_MARK]:
    return Grounding(names, ())
  kinds = columns.get("bbox_type") or "real"
  kinds = kinds if isinstance(kinds, list) else [kinds] * len(corners)
  places = _list(columns, "image_id", "image") or [0] * len(corners)
  for field, column in (("bbox_type", kinds), ("image_id", places)):
    if len(column) != len(corners):
      raise RowError("boxes", f"{len(corners)} boxes, but {len(column)} of {field}")
  boxes = tuple(map(_read_box, range(len(corners)), corners, kinds, places))
  grounding = Grounding(names if counts[NAME_MARK] else (), boxes)
  for number, box in enumerate(boxes):
    if box.image >= images:
      raise RowError(
        "boxes", f"box {number} is of image {box.image}, counted from 0, of {images}"
      )
  in_pixels = [x for box in boxes if box.scale is None for x in box.corners]
  if (
    in_pixels and all(0 <= x <= 1 for x in in_pixels) and any(x % 1 for x in in_pixels)
  ):
    # ms-swift takes these for pixels, and trains on boxes at the image's corner.
    raise RowError("boxes", "boxes lie between 0 and 1, and bbox_type is not norm1")
  return grounding


def _read_columns(stated: Any) -> Mapping[str, Any]:
  """The names, boxes and so on of a record as lists, in whichever form it has them."""
  if isinstance(stated, str):
    try:
      stated = json.loads(stated)
    except (ValueError, RecursionError):
      raise RowError("boxes", f"{FIELD} is text, and not JSON") from None
  if isinstance(stated, list) and all(isinstance(each, dict) for each in stated):
    # ms-swift 2 has one object for each box.
    fields = dict.fromkeys(field for each in stated for field in each)
    stated = {field: [each.get(field) for each in stated] for field in fields}
    for field in ("bbox_type", "image"):
      stated[field] = [each or None for each in stated.get(field) or ()]
    stated["bbox_type"] = [each or "real" for each in stated["bbox_type"]]
    stated["image"] = [each or 0 for each in stated["image"]]
  if not isinstance(stated, dict):
    raise RowError("boxes", f"{FIELD} is {type(stated).__name__}, not an object")
  return stated


def _list(columns: Mapping[str, Any], *fields: str) -> list[Any]:
  """The first of these fields that the objects have; an empty list if none is."""
  field = next((f for f in fields if columns.get(f) is not None), None)
  value = [] if field is None else columns[field]
  if not isinstance(value, list):
    raise RowError("boxes", f"{FIELD}.{field} is {type(value).__name__}, not a list")
  return value


def _check_name(name: Any) -> str:
  if not isinstance(name, str):
    raise RowError("boxes", f"a name in {FIELD} is {type(name).__name__}, not text")
  for mark in (MARK, NAME_MARK, BOX_MARK):
    if mark in name:
      raise RowError("boxes", f"a name in {FIELD} holds {mark}")
  return name


def _read_box(number: int, corners: Any, kind: Any, image: Any) -> Box:
  if not isinstance(corners, list) or len(corners) not in (2, 4):
    raise RowError("boxes", f"box {number} is {_show(corners)}, not 2 or 4 numbers")
  for each in corners:
    is_number = isinstance(each, int | float) and not isinstance(each, bool)
    if not is_number or not math.isfinite(each):
      raise RowError("boxes", f"box {number} holds {_show(each)}, which is no number")
  if not isinstance(kind, str) or kind not in _SCALES:
    known = ", ".join(list(_SCALES)[:2])
    raise RowError("boxes", f"bbox_type is {_show(kind)}; known are {known}")
  if not isinstance(image, int) or isinstance(image, bool) or image < 0:
    raise RowError("boxes", f"image_id of box {number} is {_show(image)}")
  x, y, *end = map(float, corners)
  if end:
    x, y, *end = min(x, end[0]), min(y, end[1]), max(x, end[0]), max(y, end[1])
  return Box((x, y, *end), _SCALES[kind], image)


def _show(value: Any) -> str:
  return repr(value)[:40]
