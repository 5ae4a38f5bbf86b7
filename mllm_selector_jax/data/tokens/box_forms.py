"""How each model family writes boxes into text, and in which coordinates.

A form is a line of `BOX_FORMS`, and the form of a family a line of `FAMILIES`. Boxes
that a row's text spells are left as they are: only those that a record states beside
its text (`record_schemas.grounding`) are written in the form of the base's family.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.record_schemas import Content
from mllm_selector_jax.data.record_schemas.grounding import BOX_MARK, NAME_MARK, Box
from mllm_selector_jax.types import RowError

Size = tuple[int, int]  # width and height in pixels
AUTO = "auto"
_BEYOND = 1.0  # pixels by which a box may exceed its image, as rounding leaves it
_MARKS = re.compile(f"{NAME_MARK}|{BOX_MARK}")
# Four numbers in a list, as in "bbox_2d": [1, 2, 3, 4], or two pairs of Qwen's marks.
_SPELLED = re.compile(
  r"\[\s*\d+(?:\.\d+)?(?:\s*,\s*\d+(?:\.\d+)?){3}\s*\]"
  r"|<\|box_start\|>|\(\d+,\s*\d+\),\s*\(\d+,\s*\d+\)"
)


class BoxForm(NamedTuple):
  """How boxes and names of objects are written.

  Attributes:
    convert: (x, y, size, seen) -> the coordinates as text, from pixels of the image.
      Size is that of the image, and seen the size at which the model sees it.
    join_points: from the points of a box, each a pair of texts, to the box's text.
    name: the text of a name, with {} in its place.
    by_pixels: whether the coordinates are pixels of the image as the model sees it.
  """

  convert: Callable[[float, float, Size, Size], tuple[str, str]]
  join_points: Callable[[Sequence[tuple[str, str]]], str]
  name: str = "{}"
  by_pixels: bool = False


def _as_thousandths(x: float, y: float, size: Size, seen: Size) -> tuple[str, str]:
  """Thousandths of the image's width and height, 0 to 1000."""
  whole = [
    min(max(round(value / side * 1000), 0), 1000)
    for value, side in zip((x, y), size, strict=True)
  ]
  return str(whole[0]), str(whole[1])


def _as_seen(x: float, y: float, size: Size, seen: Size) -> tuple[str, str]:
  """Pixels of the image as the model sees it; the last one is at the side less one."""
  whole = [
    min(max(round(value / side * shown), 0), shown - 1)
    for value, side, shown in zip((x, y), size, seen, strict=True)
  ]
  return str(whole[0]), str(whole[1])


def _as_padded(x: float, y: float, size: Size, seen: Size) -> tuple[str, str]:
  """Shares of the square to which LLaVA-1.5 pads the image, in hundredths."""
  square = max(size)
  shares = [
    round(min(max((value + (square - side) // 2) / square, 0.0), 1.0), 2)
    for value, side in zip((x, y), size, strict=True)
  ]
  return str(shares[0]), str(shares[1])


def _in_list(points: Sequence[tuple[str, str]]) -> str:
  return f"[{', '.join(text for point in points for text in point)}]"


def _in_marks(points: Sequence[tuple[str, str]]) -> str:
  pairs = ",".join(f"({x},{y})" for x, y in points)
  return f"<|box_start|>{pairs}<|box_end|>"


def _in_tags(points: Sequence[tuple[str, str]]) -> str:
  return f"<box>[{_in_list(points)}]</box>"


_QWEN_NAME = "<|object_ref_start|>{}<|object_ref_end|>"
BOX_FORMS = {
  "qwen2": BoxForm(_as_thousandths, _in_marks, _QWEN_NAME),
  # As Qwen's own examples for these two write them, inside JSON.
  "qwen2.5": BoxForm(_as_seen, _in_list, by_pixels=True),
  "qwen3": BoxForm(_as_thousandths, _in_list),
  # As ms-swift writes them for Qwen2.5-VL unless it is told otherwise.
  "qwen2.5-marks": BoxForm(_as_seen, _in_marks, _QWEN_NAME, by_pixels=True),
  "internvl": BoxForm(_as_thousandths, _in_tags, "<ref>{}</ref>"),
  "llava": BoxForm(_as_padded, _in_list),
}
# By the model_type of config.json. Families that are not here were not trained on boxes
# in a form that their makers describe.
FAMILIES = {
  "qwen2_vl": "qwen2",
  "qwen2_5_vl": "qwen2.5",
  "qwen3_vl": "qwen3",
  "qwen3_vl_moe": "qwen3",
  "internvl": "internvl",
  "llava": "llava",
  "llava_next": "llava",
}


def choose_form(name: str, family: str) -> BoxForm | None:
  """The form that `model.box_form` means for a family; None if it is not known."""
  known = FAMILIES.get(family) if name == AUTO else name
  return None if known is None else BOX_FORMS[known]


@dataclasses.dataclass(frozen=True)
class BoxWriter:
  """Writes the boxes that records state, in the form of one base.

  Attributes:
    form: how boxes are written; None if it is not known.
    images: how images of the base become tokens.
  """

  form: BoxForm | None
  images: BaseImages

  def write(self, content: Content, sizes: Sequence[Size]) -> list[dict[str, Any]]:
    """The turns of a record with its boxes and names in place of their marks.

    Args:
      content: of the record.
      sizes: of its images, as the image processor sees them.

    Raises:
      RowError: a box is outside of its image, or no form is known for the base.
    """
    grounding = content.grounding
    if grounding is None:
      return content.conversations
    form = self.form
    if form is None:
      raise RowError("box form", "the record states boxes or names in objects")
    texts = {
      NAME_MARK: iter([form.name.replace("{}", name) for name in grounding.names]),
      BOX_MARK: self._write_boxes(form, grounding.boxes, sizes),
    }

    def fill(match: re.Match) -> str:
      return next(texts[match[0]])

    return [
      {**turn, "value": _MARKS.sub(fill, turn["value"])}
      for turn in content.conversations
    ]

  def is_off(self, content: Content, sizes: Sequence[Size]) -> bool:
    """Whether a row may spell boxes in other pixels than those that the model sees.

    It may if the base's coordinates are pixels, the row's text spells boxes, and an
    image is resized before the model sees it.
    """
    if self.form is None or not self.form.by_pixels or content.grounding is not None:
      return False
    if all(self.images.see_size(*size) == tuple(size) for size in sizes):
      return False
    return any(_SPELLED.search(turn.text) for turn in content.turns)

  def _write_boxes(
    self, form: BoxForm, boxes: Sequence[Box], sizes: Sequence[Size]
  ) -> Iterator[str]:
    for number, box in enumerate(boxes):
      size = sizes[box.image]
      seen = self.images.see_size(*size)
      points = list(_list_points(number, box, size))
      yield form.join_points([form.convert(*point, size, seen) for point in points])


def _list_points(number: int, box: Box, size: Size) -> Iterator[tuple[float, float]]:
  """The corners of a box in pixels of its image.

  Raises:
    RowError: one of them is outside of the image.
  """
  for x, y in zip(box.corners[::2], box.corners[1::2], strict=True):
    point = (x, y)
    if box.scale is not None:
      point = x / box.scale * size[0], y / box.scale * size[1]
    for value, side in zip(point, size, strict=True):
      if not -_BEYOND <= value <= side + _BEYOND:
        shown = ", ".join(f"{corner:g}" for corner in box.corners)
        raise RowError(
          "boxes",
          f"box {number}, ({shown}), is outside of its image of {size[0]} x {size[1]}"
          " pixels",
        )
    yield point
