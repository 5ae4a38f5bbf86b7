"""Reads the texts and thumbnails of the rows that the page shows."""

import base64
import dataclasses
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mllm_selector_jax.data import formats, record_schemas
from mllm_selector_jax.data.images.image_folders import AnyFolders
from mllm_selector_jax.data.images.pictures import read_picture
from mllm_selector_jax.data.record_schemas import grounding
from mllm_selector_jax.pages import findings, tables
from mllm_selector_jax.pages.gather import Pool, Selection
from mllm_selector_jax.pages.picks import Pick
from mllm_selector_jax.types import MARK, InputError, Picture, RowError

THUMBNAIL = 128  # pixels of the longer side, at most
MAX_PIXELS = 64_000_000  # of an image to make a thumbnail of
MOST_BYTES = 3_000_000  # of all thumbnails together
MOST_TEXT = 300  # characters of a question or answer
MOST_TURNS = 2  # rounds of a conversation
MOST_PICTURES = 4  # images of a row
MOST_RECORD = 1 << 20  # bytes of a record that are read
_PNG_BYTES = 6_000  # a larger thumbnail is stored as JPEG
_UNWRITABLE = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
COLUMNS = ("id", "images", "source", "file", "offset", "length", "reason", "detail")


@dataclasses.dataclass(frozen=True)
class Card:
  """A row as the page shows it.

  Attributes:
    turns: Pairs of `question` or `answer` and the text, truncated.
    more: Number of rounds that are left out.
    pictures: The first images as data URIs.
    no_picture: Why there are none, or how many are left out; "" otherwise.
    facts: Pairs of a label and a text about the row.
    necessity: Length of the necessity bar, between 0 and 1; None without a bar.
    doubt: Why a kept row is doubtful; "" if it is not.
  """

  row: int
  id: str
  source: str
  turns: list[tuple[str, str]]
  more: int
  pictures: list[str]
  no_picture: str
  facts: list[tuple[str, str]]
  necessity: float | None
  state: str
  reason: str
  doubt: str = ""


def make_cards(
  pool: Pool, selection: Selection | None, images: AnyFolders, picks: list[Pick]
) -> list[tuple[Pick, list[Card]]]:
  """Read the records and images of the picked rows; damaged ones say so."""
  rows = np.unique(np.concatenate([np.zeros(0, np.int64), *(p.rows for p in picks)]))
  records = tables.read_rows(pool.path, rows, COLUMNS)
  budget, groups, files = MOST_BYTES, [], formats.OpenFiles()
  for pick in picks:
    cards = []
    for row in map(int, pick.rows):
      card = _make_card(row, records[row], pool, selection, images, budget, files)
      budget -= sum(map(len, card.pictures))
      cards.append(card)
    groups.append((pick, cards))
  return groups


def _make_card(
  row: int,
  record: dict[str, Any],
  pool: Pool,
  selection: Selection | None,
  images: AnyFolders,
  budget: int,
  files: formats.OpenFiles,
) -> Card:
  turns, omitted_rounds = read_turns(record, files)
  thumbnails: list[str] = []
  no_picture = "no image" if pool.aside[row] else "text only"
  if record.get("images"):
    thumbnails, no_picture = _make_thumbnails(record, images, budget, files)
  state, reason, facts, necessity = "set aside", record.get("reason") or "", [], None
  doubt = ""
  if pool.aside[row]:
    if record.get("detail"):
      facts.append(("detail", cut(str(record["detail"]), 200)))
  elif selection is not None:
    state = "kept" if selection.kept[row] else "not kept"
    reason = _name(selection.reason, row, "no reason given")
    doubt = _name(selection.doubt, row, "")
    facts, necessity = _decision(selection, row)
  else:
    state = "usable"
  return Card(
    row=row,
    id=cut("no id" if record.get("id") is None else str(record["id"]), 80),
    source=cut(str(record.get("source") or "no source"), 60),
    turns=turns,
    more=omitted_rounds,
    pictures=thumbnails,
    no_picture=no_picture,
    facts=facts,
    necessity=necessity,
    state=state,
    reason=cut("" if reason == state else reason, 80),
    doubt=cut(doubt, 160),
  )


def _decision(
  selection: Selection, row: int
) -> tuple[list[tuple[str, str]], float | None]:
  facts: list[tuple[str, str]] = []
  bar = None
  group, necessity = int(selection.group[row]), float(selection.necessity[row])
  if group >= 0:
    label = findings.group_label(group, selection.group_names.get(group))
    facts.append(("group", cut(label, 40)))
  if selection.judged.any():
    facts.append(("seed model", findings.describe_knowledge(selection, row)))
  if selection.rank[row] >= 0:
    rank = f"{selection.rank[row] + 1:,} of {selection.kept.sum():,}"
    facts.append(("rank", rank))  # as `explain` says it
  if math.isfinite(necessity):
    facts.append(("necessity", f"{necessity:.3f}"))
    bar = necessity if 0 <= necessity <= 1 else None
  gain, threshold = float(selection.gain[row]), float(selection.threshold[row])
  if math.isfinite(gain):
    facts.append(("gain", f"{gain:.4g}"))
    if math.isfinite(threshold):
      relation = "reached" if gain >= threshold else "not reached"
      facts.append(("threshold", f"{threshold:.4g}, {relation}"))
  return facts, bar


def read_turns(
  record: dict[str, Any], files: formats.OpenFiles | None = None
) -> tuple[list[tuple[str, str]], int]:
  """Read the first rounds of a conversation, truncated.

  Args:
    record: The row's line of `pool.parquet`, with `COLUMNS`.
    files: Pool files that stay open for other rows.

  Returns:
    Pairs of `question` or `answer` and the text, or one pair `record` with the raw text
    if the record is not a conversation; and the number of rounds left out.
  """
  files = files or formats.OpenFiles()
  try:
    file = files.get(record["file"])
    offset, length = record["offset"], record["length"]
    read_length = (
      min(length, MOST_RECORD) if isinstance(file, formats.JsonFile) else length
    )
    data = file.text(offset, read_length)
  except (InputError, OSError, KeyError, TypeError, ValueError):
    return [("record", "The pool's file cannot be read any more.")], 0
  try:
    content = record_schemas.read_content(file.read(offset, length))
    numbers, fill = itertools.count(1), _fill_objects(content.grounding)
    turns = [
      (
        "answer" if turn["from"] in ("gpt", "assistant") else "question",
        cut(_show_marks(fill(str(turn["value"])), record, numbers), MOST_TEXT),
      )
      for turn in content.conversations
    ]
    if turns:
      return turns[: 2 * MOST_TURNS], max(0, math.ceil(len(turns) / 2) - MOST_TURNS)
  except (ValueError, KeyError, TypeError):
    pass
  raw = data[: 4 * MOST_TEXT].decode("utf-8", "replace")
  return [("record", cut(raw, MOST_TEXT))], 0


def _fill_objects(found: grounding.Grounding | None) -> Callable[[str], str]:
  """Return a function that puts names and boxes in place of the marks of a record.

  It has to be called for each turn in order. Boxes are written as the record states
  them, since how the base writes them is not known here.
  """
  if found is None:
    return lambda text: text
  boxes = [", ".join(f"{x:g}" for x in box.corners) for box in found.boxes]
  texts = {
    grounding.NAME_MARK: iter(found.names),
    grounding.BOX_MARK: iter([f"[{corners}]" for corners in boxes]),
  }
  marks = re.compile("|".join(map(re.escape, texts)))
  return lambda text: marks.sub(lambda mark: next(texts[mark[0]], mark[0]), text)


def _show_marks(text: str, record: dict[str, Any], numbers: Iterator[int]) -> str:
  """Replace <image> marks by the images' numbers; a row's only image needs none.

  The text of a row that was set aside, perhaps because of its marks, stays as it is.
  """
  if record.get("reason"):
    return text
  if len(record.get("images") or ()) < 2:
    return text.replace(MARK, "").strip()
  return re.sub(MARK, lambda _: f"[image {next(numbers)}]", text).strip()


def _make_thumbnails(
  record: dict[str, Any], images: AnyFolders, budget: int, files: formats.OpenFiles
) -> tuple[list[str], str]:
  """The row's first images, and what is to be said of the others."""
  pictures, said = find_pictures(record, files), ""
  thumbnails: list[str] = []
  for picture in pictures[:MOST_PICTURES]:
    thumbnail, problem = make_thumbnail(images, picture)
    if thumbnail is None:
      said = problem
    elif len(thumbnail) > budget:
      said = "image left out to keep this page small"
    else:
      thumbnails.append(thumbnail)
      budget -= len(thumbnail)
  if not said and len(pictures) > MOST_PICTURES:
    said = f"and {len(pictures) - MOST_PICTURES} more images"
  return thumbnails, said


def make_thumbnail(
  images: AnyFolders, picture: Picture, side: int = THUMBNAIL, form: str = ""
) -> tuple[str | None, str]:
  """Make a thumbnail as a data URI; return None and the reason if that fails.

  Args:
    images: The pool's image folders.
    picture: The image.
    side: Pixels of the longer side, at most.
    form: The file format; "" for PNG, or JPEG if that would be large.
  """
  from PIL import Image

  from mllm_selector_jax.data.images.decoding import decode_image

  try:
    image = decode_image(read_picture(picture, images), MAX_PIXELS, pads=False)
  except RowError as error:
    return None, error.reason if images else "no image folder given"
  image.thumbnail((side, side), Image.Resampling.BICUBIC)
  data, kind = _save(image, form or "png"), form or "png"
  if not form and len(data) > _PNG_BYTES:
    data, kind = _save(image, "jpeg"), "jpeg"
  return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", ""


def _save(image: Any, form: str) -> bytes:
  buffer = io.BytesIO()
  options = {"optimize": True} if form == "png" else {"quality": 80}
  image.save(buffer, form, **options)
  return buffer.getvalue()


def find_pictures(record: dict[str, Any], files: formats.OpenFiles) -> list[Picture]:
  """Find the row's images, inside the pool's file or in the image folders."""
  try:
    found = files.get(record["file"]).read(record["offset"], record["length"])
    pictures = record_schemas.read_pictures(found)
  except (ValueError, KeyError, TypeError):
    pictures = ()
  if any(picture.data is not None for picture in pictures):
    return list(pictures)
  return [Picture(str(name)) for name in record["images"]]


def cut(text: str, length: int) -> str:
  """Truncate a text, and replace characters that HTML cannot contain.

  Lone surrogates cannot be encoded as UTF-8, and control characters are not allowed in
  HTML; both become the replacement character.
  """
  text = _UNWRITABLE.sub("\ufffd", text[: length + 1])
  return text if len(text) <= length else text[:length].rstrip() + "…"


def _name(labels: tables.Labels, row: int, missing: str) -> str:
  code = labels.codes[row]
  return labels.names[code] if code >= 0 else missing
