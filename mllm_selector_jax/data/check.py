"""Reads a whole pool once: what each row is, and which rows cannot be used."""

import collections
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mllm_selector_jax.data import formats, forms, mixture, sources, summary, table
from mllm_selector_jax.data.conversation import Encoder
from mllm_selector_jax.data.pictures import Finding, Gallery
from mllm_selector_jax.data.rounds import read_rounds
from mllm_selector_jax.types import ImageOptions, InputError, Picture, Record, RowError

BLOCK_ROWS = 512  # that are tokenised at once
BLOCK_BYTES = 16 << 20  # of their records
AHEAD = 2  # blocks whose images are read while another is tokenised
NO_NAME = "image"  # begins the name of an image that has none

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))

Progress = Callable[[int, int | None], None]


def check_pool(
  data: Sequence[str],
  images: str | None,
  encoder: Encoder,
  options: ImageOptions,
  image_pixel_cap: int,
  out: str | os.PathLike,
  workers: int = 2,
  progress: Progress | None = None,
  duplicate_ids: str = "aside",
  long_rows: str = "cut",
  source: str = "auto",
  seed: int = 0,
  splits: str = "train",
) -> dict[str, Any]:
  """Reads, tokenises and decodes everything; writes the pool's table.

  Args:
    data: files of any of `formats`, or what `mixture.expand` takes for them.
    images: folder that image paths are relative to; None if there is none.
    encoder: conversation to tokens.
    options: how pixels are prepared.
    image_pixel_cap: larger images are set aside.
    out: the table's file, which appears when it is whole.
    workers: threads that read images.
    progress: is told of the rows done and of how many there may be.
    duplicate_ids: "aside" keeps the first row of an id only, "keep" all.
    long_rows: "cut" cuts what is longer than the encoder's longest row, as LLaVA
      does, "aside" sets it aside.
    source: the rule that names a row's source, see `sources.make_finder`.
    seed: of the rows that a mixture takes at random.
    splits: those that are taken of folders, with commas, or "all".

  Returns:
    What the pool holds, as JSON can have it: see `summary.Tally`.

  Raises:
    InputError: a file cannot be read, or no row can be used.
    RunError: the table cannot be written.
  """
  if duplicate_ids not in ("aside", "keep"):
    raise InputError(f"duplicate_ids={duplicate_ids!r}: allowed are aside and keep.")
  if long_rows not in ("cut", "aside"):
    raise InputError(f"long_rows={long_rows!r}: allowed are cut and aside.")
  if not data:
    raise InputError("No pool file is given: name at least one.")
  parts, left_out = mixture.find_files(data, splits)
  find_source = sources.make_finder(source)
  seen = None if duplicate_ids == "keep" else set()
  tally = summary.Tally()
  reading = _Reading(parts, seed)

  def request(block: list[_Row]) -> None:
    gallery.request(
      (row.row, row.picture) for row in block if row.picture and not row.fault
    )

  with Gallery(images, options, image_pixel_cap, workers) as gallery:
    with table.open_writer(out) as writer:
      rows = (_describe(*item, find_source, seen) for item in reading)
      for block in _look_ahead(_split(rows), request, AHEAD):
        for line, size in _finish(block, gallery, encoder, long_rows == "cut"):
          writer.add(line)
          tally.add(line, size)
        if progress is not None:
          read, share = block[-1].row + 1, max(block[-1].done, 1e-9)
          progress(read, max(read, round(read / share)))
      found = tally.result()
      if not tally.ok:
        raise InputError(summary.explain_nothing(data, found))
  if reading.not_taken:
    found["not_taken"] = dict(reading.not_taken)
  if left_out:
    found["left_out_files"] = {"count": len(left_out), "first": left_out[:5]}
  if progress is not None:
    progress(tally.rows, tally.rows)
  return found


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
  conversations: Any = None
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
  seen: set[bytes] | None,
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
  picture, conversations, fault = None, None, None
  try:
    # An image that stands in a broken row is still shown.
    picture = next(iter(forms.read_pictures(record)), None)
    conversations, pictures = forms.read_content(record)
    picture = next(iter(pictures), None)
    if len(pictures) > 1:
      raise RowError("several images", f"the record has {len(pictures)}")
  except RowError as error:
    fault = error.with_traceback(None)
  image = None
  if picture is not None:
    image = picture.name or f"{NO_NAME}-{record.offset}"
  source = find_source(record, image, file)
  if seen is not None:
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    if digest in seen:
      fault = RowError("duplicate id", "an earlier row has this id")
    seen.add(digest)
  return _Row(*place, name, source, image, picture, conversations, fault)


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
  block: list[_Row], gallery: Gallery, encoder: Encoder, cut: bool
) -> Iterator[tuple[table.Line, int]]:
  """The block's lines, in order, each with the size of its image file."""
  checked = []
  for row in block:
    picture, fault = Finding(None, 0), row.fault
    if fault is None and row.image is not None:
      picture = gallery.get(row.row, row.picture)
      if picture.reason is not None:
        fault = RowError(picture.reason, picture.detail)
    checked.append((row, picture, fault))
  samples = iter(
    encoder.encode_many(
      [
        (row.conversations, row.image is not None)
        for row, _, fault in checked
        if fault is None
      ]
    )
  )
  for row, picture, fault in checked:
    sample = fault or next(samples)
    if not cut and not isinstance(sample, RowError) and sample.truncated:
      sample = RowError("too long", f"more than {encoder.max_length:,} tokens")
    if isinstance(sample, RowError):
      found = (0, 0, 0, 0, "aside", sample.reason, sample.detail, False)
      content = None
    else:
      turns = len(read_rounds(row.conversations))
      supervised = int(np.count_nonzero(sample.supervised))
      trunk = encoder.measure_trunk(sample)
      found = (turns, len(sample.tokens), supervised, trunk, "ok", None, None)
      found += (sample.truncated,)
      content = _hash(row.conversations, picture.hash)
    line = table.Line(
      row.row, row.id, content, row.source, row.image, picture.hash,
      picture.pixels, *found, row.file, row.offset, row.length,
    )  # fmt: skip
    yield line, picture.size


def _hash(conversations: Any, image_hash: str | None) -> str:
  """Identity of a row's content, whatever its id and place."""
  text = _CANONICAL.encode(conversations)
  return hashlib.sha256(f"{text}\n{image_hash or ''}".encode()).hexdigest()[:32]
