"""Reads a whole pool once: what each row is, and which rows cannot be used."""

import collections
import contextlib
import gc
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mllm_selector_jax.data import (
  formats,
  mixture,
  record_schemas,
  sources,
  summary,
  table,
)
from mllm_selector_jax.data.checked_parts import Checked, Parts
from mllm_selector_jax.data.conversation import Encoder
from mllm_selector_jax.data.image_folders import AnyFolders
from mllm_selector_jax.data.pictures import Finding, Gallery
from mllm_selector_jax.data.rounds import Dialogue, hash_answers, read_dialogue
from mllm_selector_jax.data.row_hash import hash_row
from mllm_selector_jax.types import (
  ImageOptions,
  InputError,
  Picture,
  Record,
  RowError,
)

BLOCK_ROWS = 512  # that are tokenised at once
BLOCK_BYTES = 16 << 20  # of their records
AHEAD = 2  # blocks whose images are read while another is tokenised
COLLECT_AFTER = 50_000  # new objects; Python's own 700 cost a fifth of the time
NO_NAME = "image"  # begins the name of an image that has none

DUPLICATES = ("keep", "aside")  # what may be done with rows or ids that repeat
LONG_ROWS = ("cut", "aside")

Progress = Callable[[int, int | None], None]


def check_pool(
  data: Sequence[str],
  images: AnyFolders,
  encoder: Encoder,
  options: ImageOptions,
  image_pixel_cap: int,
  out: str | os.PathLike,
  workers: int = 2,
  progress: Progress | None = None,
  duplicate_ids: str = "keep",
  duplicate_rows: str = "keep",
  long_rows: str = "cut",
  source: str = "auto",
  seed: int = 0,
  resume: bool = False,
  splits: str = "train",
) -> dict[str, Any]:
  """Reads, tokenises and decodes everything; writes the pool's table.

  Args:
    data: files of any of `formats`, or what `mixture.expand` takes for them.
    images: folders that hold the images; None if there is none.
    encoder: conversation to tokens.
    options: how pixels are prepared.
    image_pixel_cap: larger images are set aside.
    out: the table's file, which appears when it is whole.
    workers: threads that read images.
    progress: is told of the rows done and of how many there may be.
    duplicate_ids: "keep" takes an id for a label that may repeat, "aside" keeps the
      first row of an id only.
    duplicate_rows: "keep" keeps rows of the same conversation and image, and counts
      them, "aside" keeps the first only.
    long_rows: "cut" cuts what is longer than the encoder's longest row, as LLaVA
      does, "aside" sets it aside.
    source: the rule that names a row's source, see `sources.make_finder`.
    seed: of the rows that a mixture takes at random.
    resume: go on after the parts that an earlier check of the same pool, with the
      same arguments, left beside `out`.
    splits: those that are taken of folders, with commas, or "all".

  Returns:
    What the pool holds, as JSON can have it: see `summary.Tally`.

  Raises:
    InputError: a file cannot be read, or no row can be used.
    RunError: the table cannot be written.
  """
  for name, value, allowed in (
    ("duplicate_ids", duplicate_ids, DUPLICATES),
    ("duplicate_rows", duplicate_rows, DUPLICATES),
    ("long_rows", long_rows, LONG_ROWS),
  ):
    if value not in allowed:
      raise InputError(f"{name}={value!r}: allowed are {' and '.join(allowed)}.")
  if not data:
    raise InputError("No pool file is given: name at least one.")
  parts, left_out = mixture.find_files(data, splits)
  find_source = sources.make_finder(source)
  ids = _Seen() if duplicate_ids == "aside" else None
  contents = _Seen() if duplicate_rows == "aside" else None
  tally = summary.Tally()
  done = Parts(out, resume)
  for checked in done.read():
    tally.add(*checked)
    if ids is not None:
      ids.add(checked.line.id)
    if contents is not None and checked.line.hash is not None:
      contents.add(checked.line.hash)
  reading = _Reading(parts, seed)

  def request(block: list[_Row]) -> None:
    gallery.request(
      (row.row, row.picture) for row in block if row.picture and not row.fault
    )

  with (
    Gallery(images, options, image_pixel_cap, workers) as gallery,
    _collect_seldom(),
  ):
    found = itertools.islice(reading, done.rows, None)
    rows = (_describe(*item, find_source, ids) for item in found)
    for block in _look_ahead(_split(rows), request, AHEAD):
      for checked in _finish(block, gallery, encoder, long_rows == "cut", contents):
        done.add(checked)
        tally.add(*checked)
      if progress is not None:
        read, share = block[-1].row + 1, max(block[-1].done, 1e-9)
        progress(read, max(read, round(read / share)))
  result = tally.result()
  if not tally.ok:
    raise InputError(summary.explain_nothing(data, result))
  done.finish()
  if reading.not_taken:
    result["not_taken"] = dict(reading.not_taken)
  if left_out:
    result["left_out_files"] = {"count": len(left_out), "first": left_out[:5]}
  if progress is not None:
    progress(tally.rows, tally.rows)
  return result


@contextlib.contextmanager
def _collect_seldom() -> Iterator[None]:
  """Lets Python look for reference cycles less often: records have none."""
  thresholds = gc.get_threshold()
  gc.set_threshold(max(COLLECT_AFTER, thresholds[0]) if thresholds[0] else 0)
  try:
    yield
  finally:
    gc.set_threshold(*thresholds)


class _Seen:
  """Texts seen so far, each remembered by a short hash."""

  def __init__(self):
    self._digests: set[bytes] = set()

  def add(self, text: str) -> bool:
    """Remembers a text; whether it was there before."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    known = digest in self._digests
    self._digests.add(digest)
    return known


class _Row(NamedTuple):
  """A row on its way: what is known without its image and its tokens."""

  row: int
  file: str
  offset: int
  length: int
  done: float
  id: str
  source: str
  image: str | None = None
  picture: Picture | None = None
  content: record_schemas.Content | None = None
  fault: RowError | None = None


class _Reading:
  """Goes through the files' records, and counts those that are not taken."""

  def __init__(self, parts: Sequence[mixture.Part], seed: int):
    self.not_taken = collections.Counter()
    self._parts = parts
    self._seed = seed

  def __iter__(self) -> Iterator[tuple[int, str, Record, float]]:
    number = itertools.count()
    sizes = [formats.measure(part.file) for part in self._parts]
    ends = list(itertools.accumulate(sizes))
    for part, size, end in zip(self._parts, sizes, ends, strict=True):
      file = formats.open_file(part.file)
      taken = mixture.choose(part, file.count, self._seed)
      for place, record in enumerate(file.records()):
        if taken is not None and not _holds(taken, place):
          self.not_taken[part.file] += 1
          continue
        done = (end - size * (1 - file.done(record))) / max(1, ends[-1])
        yield next(number), part.file, record, done


def _holds(ascending: np.ndarray, value: int) -> bool:
  place = np.searchsorted(ascending, value)
  return place < len(ascending) and ascending[place] == value


def _describe(
  row: int,
  file: str,
  record: Record,
  done: float,
  find_source: sources.FindSource,
  ids: _Seen | None,
) -> _Row:
  place = row, file, record.offset, record.length, done
  if record.value is None:
    # It has no id to be found by.
    where = f"{file}, byte {record.offset:,}"
    fault = RowError(record.reason, f"{where}: {record.detail}")
    name = record.id or f"row-{row}"
    return _Row(*place, name, record.source or "unknown", fault=fault)
  name = record.value.get("id")
  if name is None:
    name = f"row-{row}" if record.id is None else record.id
  name = sources.as_text(name)
  picture, content, fault = None, None, None
  try:
    content = record_schemas.read_content(record)
    picture = next(iter(content.pictures), None)
    if len(content.pictures) > 1:
      raise RowError("several images", f"the record has {len(content.pictures)}")
  except RowError as error:
    fault = error.with_traceback(None)
    if content is None:
      picture = _find_picture(record)
  image = None
  if picture is not None:
    image = picture.name or f"{NO_NAME}-{record.offset}"
  source = find_source(record, image, file)
  if ids is not None and ids.add(name):
    fault = RowError("duplicate id", "an earlier row has this id")
  return _Row(*place, name, source, image, picture, content, fault)


def _find_picture(record: Record) -> Picture | None:
  """The first image of a row that cannot be used, to be shown nevertheless."""
  try:
    return next(iter(record_schemas.read_pictures(record)), None)
  except RowError:
    return None


def _split(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
  """Blocks bounded in rows and in bytes."""
  block, size = [], 0
  for row in rows:
    block.append(row)
    size += row.length
    if len(block) == BLOCK_ROWS or size >= BLOCK_BYTES:
      yield block
      block, size = [], 0
  if block:
    yield block


def _look_ahead(
  blocks: Iterable[list[_Row]], request: Callable[[list[_Row]], None], count: int
) -> Iterator[list[_Row]]:
  """The blocks, each requested while `count` earlier ones are in work."""
  waiting: collections.deque[list[_Row]] = collections.deque()
  for block in blocks:
    request(block)
    waiting.append(block)
    if len(waiting) > count:
      yield waiting.popleft()
  yield from waiting


def _finish(
  block: list[_Row],
  gallery: Gallery,
  encoder: Encoder,
  cut: bool,
  contents: _Seen | None,
) -> Iterator[Checked]:
  """The block's lines, in order, each with what the summary counts beside it."""
  looked = [(row, *_look(row, gallery)) for row in block]
  samples = iter(
    encoder.encode_many(
      [
        (each, row.image is not None)
        for row, _, _, each in looked
        if isinstance(each, Dialogue)
      ]
    )
  )
  for row, picture, talk, each in looked:
    sample = next(samples) if isinstance(each, Dialogue) else each
    content, remarks = None, ()
    if not cut and not isinstance(sample, RowError) and sample.truncated:
      sample = RowError("too long", f"more than {encoder.max_length:,} tokens")
    if not isinstance(sample, RowError):
      content = hash_row(talk, picture.hash)
      if contents is not None and contents.add(content):
        sample = RowError("duplicate row", "an earlier row holds the same")
    if isinstance(sample, RowError):
      found = (0, 0, 0, 0, "aside", sample.reason, sample.detail, False)
      content, answer = None, 0
    else:
      answer = hash_answers([r for r in each.rounds if r.learned])
      supervised = int(np.count_nonzero(sample.supervised))
      trunk = encoder.measure_trunk(sample)
      found = (len(each.rounds), len(sample.tokens), supervised, trunk)
      found += ("ok", None, None, sample.truncated)
      remarks = tuple(_list_remarks(row.content, talk, each, encoder, picture))
    line = table.Line(
      row.row, row.id, content, row.source, row.image, picture.hash,
      picture.pixels, *found, row.file, row.offset, row.length, answer,
    )  # fmt: skip
    yield Checked(line, picture.size, remarks)


def _look(
  row: _Row, gallery: Gallery
) -> tuple[Finding, list[dict[str, Any]], Dialogue | RowError]:
  """A row's image, its conversation, and what is read of it or its fault."""
  picture = Finding(None, 0)
  if row.fault is not None:
    return picture, [], row.fault
  if row.image is not None:
    picture = gallery.get(row.row, row.picture)
    if picture.reason is not None:
      return picture, [], RowError(picture.reason, picture.detail)
  conversations = row.content.conversations
  try:
    return picture, conversations, read_dialogue(conversations)
  except RowError as error:
    return picture, conversations, error.with_traceback(None)


def _list_remarks(
  content: record_schemas.Content,
  conversations: list[dict[str, Any]],
  dialogue: Dialogue,
  encoder: Encoder,
  picture: Finding,
) -> Iterator[str]:
  """What the summary counts of a usable row."""
  yield from content.notes
  if picture.linked:
    yield summary.LINKED
  if any("loss" in turn for turn in conversations):
    yield summary.MASKED
  if dialogue.system is not None:
    yield summary.SYSTEM_USED if encoder.takes_system else f"{summary.UNREAD}system"
  for field in content.unread:
    yield f"{summary.UNREAD}{field}"
