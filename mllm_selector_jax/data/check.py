"""Reads a whole pool once: what each row is, and which rows cannot be used."""

import collections
import concurrent.futures
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mllm_selector_jax.data import images, summary, table
from mllm_selector_jax.data.conversation import Encoder
from mllm_selector_jax.data.records import Record, read_records
from mllm_selector_jax.data.rounds import read_rounds
from mllm_selector_jax.types import ImageOptions, InputError, RowError

BLOCK_ROWS = 512  # that are tokenised at once
BLOCK_BYTES = 16 << 20  # of their records
AHEAD = 2  # blocks whose images are read while another is tokenised
TASK_IMAGES = 16  # that a thread reads in one go
SOURCE_FIELDS = ("source", "data_source")
NO_FOLDER = "image"  # source of an image path without a folder
TEXT_ONLY = "text"  # source of a row without an image

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
  source_field: str | None = None,
) -> dict[str, Any]:
  """Reads, tokenises and decodes everything; writes the pool's table.

  Args:
    data: LLaVA JSON or JSONL files.
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
    source_field: of the records, names the source; by default "source" or
      "data_source", and where they are absent the image path's first folder.

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
  fields = (source_field,) if source_field else SOURCE_FIELDS
  seen = None if duplicate_ids == "keep" else set()
  tally = summary.Tally()
  total = _Total(data)
  with _Pictures(images, options, image_pixel_cap, workers) as pictures:
    with table.open_writer(out) as writer:
      rows = (_describe(*item, fields, seen) for item in _read(data))
      for block in _look_ahead(_split(rows), pictures.request, AHEAD):
        for line, size in _finish(block, pictures, encoder, long_rows == "cut"):
          writer.add(line)
          tally.add(line, size)
        if progress is not None:
          last = block[-1]
          progress(last.row + 1, total.estimate(last))
      found = tally.result()
      if not tally.ok:
        raise InputError(summary.explain_nothing(data, found))
  if progress is not None:
    progress(tally.rows, tally.rows)
  return found


class _Row(NamedTuple):
  """A row on its way: what is known without its image and its tokens."""

  row: int
  file: str
  offset: int
  length: int
  id: str
  source: str
  image: str | None = None
  conversations: Any = None
  fault: RowError | None = None


def _read(data: Iterable[str]) -> Iterator[tuple[int, str, Record]]:
  number = itertools.count()
  for file in data:
    for record in read_records(file):
      yield next(number), file, record


def _describe(
  row: int, file: str, record: Record, fields: Sequence[str], seen: set[bytes] | None
) -> _Row:
  place = row, file, record.offset, record.length
  if record.value is None:
    # It has no id to be found by.
    where = f"{file}, byte {record.offset:,}"
    fault = RowError(record.reason, f"{where}: {record.detail}")
    return _Row(*place, f"row-{row}", "unknown", fault=fault)
  value = record.value
  name = value.get("id")
  name = f"row-{row}" if name is None else _as_text(name)
  image, fault = None, None
  try:
    # An image path that stands in a broken row is still shown.
    image = read_image_path(value)
  except RowError as error:
    fault = error.with_traceback(None)
  source = _find_source(value, image, fields)
  if fault is None and "conversations" not in value:
    fault = RowError("malformed", 'the record has no "conversations"')
  if seen is not None:
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    if digest in seen:
      fault = RowError("duplicate id", "an earlier row has this id")
    seen.add(digest)
  return _Row(*place, name, source, image, value.get("conversations"), fault)


def _as_text(value: Any) -> str:
  return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_image_path(value: dict[str, Any]) -> str | None:
  """The one image that a record names, None for text alone.

  Raises:
    RowError: it names several, or something else.
  """
  image = value.get("image")
  if isinstance(image, list):
    if len(image) > 1:
      raise RowError("several images", f"the record names {len(image)}")
    image = image[0] if image else None
  if image is None:
    if value.get("video") is not None:
      raise RowError("unsupported image", "the record names a video")
    return None
  if not isinstance(image, str):
    raise RowError("malformed", f"image is {type(image).__name__}, not a path")
  return image


def _find_source(
  value: dict[str, Any], image: str | None, fields: Sequence[str]
) -> str:
  for field in fields:
    if (given := value.get(field)) not in (None, ""):
      return _as_text(given)
  if image is None:
    return TEXT_ONLY
  folder, slash, _ = image.removeprefix("./").partition("/")
  return folder if slash and folder else NO_FOLDER


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


class _Picture(NamedTuple):
  """What is kept of an image: its hashes and size, or why it cannot be used."""

  hash: str | None
  size: int
  pixels: str | None = None
  reason: str | None = None
  detail: str = ""


class _Pictures:
  """Reads each image once, on threads, and remembers the little that is needed."""

  def __init__(
    self, folder: str | None, options: ImageOptions, max_pixels: int, workers: int
  ):
    self._folder = folder
    self._options = options
    self._max_pixels = max_pixels
    self._pool = concurrent.futures.ThreadPoolExecutor(max(1, workers))
    self._known: dict[str, _Picture | concurrent.futures.Future] = {}

  def __enter__(self) -> "_Pictures":
    return self

  def __exit__(self, *_) -> None:
    self._pool.shutdown(cancel_futures=True)

  def request(self, block: list[_Row]) -> None:
    if self._folder is None:
      return
    named = (row.image for row in block if row.fault is None)
    new = list(
      dict.fromkeys(p for p in named if p is not None and p not in self._known)
    )
    for start in range(0, len(new), TASK_IMAGES):
      paths = new[start : start + TASK_IMAGES]
      future = self._pool.submit(self._look_at, paths)
      self._known.update(dict.fromkeys(paths, future))

  def get(self, path: str) -> _Picture:
    if self._folder is None:
      return _Picture(None, 0, None, "missing image", "no image folder is given")
    known = self._known[path]
    if isinstance(known, concurrent.futures.Future):
      self._known.update(known.result())
      known = self._known[path]
    return known

  def _look_at(self, paths: Iterable[str]) -> dict[str, _Picture]:
    return {path: self._look_at_one(path) for path in paths}

  def _look_at_one(self, path: str) -> _Picture:
    try:
      data = images.read_file(self._folder, path)
      image = images.decode_image(data, self._max_pixels)
    except RowError as error:
      return _Picture(None, 0, None, error.reason, error.detail)
    pixels = np.ascontiguousarray(images.to_pixels(image, self._options))
    return _Picture(
      hashlib.sha256(data).hexdigest(),
      len(data),
      hashlib.blake2b(pixels, digest_size=16).hexdigest(),
    )


def _finish(
  block: list[_Row], pictures: _Pictures, encoder: Encoder, cut: bool
) -> Iterator[tuple[table.Line, int]]:
  """The block's lines, in order, each with the size of its image file."""
  checked = []
  for row in block:
    picture, fault = _Picture(None, 0), row.fault
    if fault is None and row.image is not None:
      picture = pictures.get(row.image)
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


class _Total:
  """Guesses the number of rows from the bytes read."""

  def __init__(self, data: Sequence[str]):
    sizes = [os.path.getsize(file) if os.path.isfile(file) else 0 for file in data]
    ends = list(itertools.accumulate(sizes))
    self._before = dict(zip(data, [0, *ends], strict=False))
    self._all = ends[-1]

  def estimate(self, last: _Row) -> int:
    read = self._before[last.file] + last.offset + last.length
    return max(last.row + 1, round((last.row + 1) * self._all / read))
