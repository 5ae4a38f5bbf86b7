"""Defines the checked pool on disk, which is written by row and read by column."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt64

from mllm_selector_jax import storage
from mllm_selector_jax.data import formats
from mllm_selector_jax.data.packing.prefixes import Prefixes
from mllm_selector_jax.data.pool.answer_formats import name_formats
from mllm_selector_jax.data.pool.list_column import Lists, list_texts
from mllm_selector_jax.data.pool.text_column import Text
from mllm_selector_jax.data.record_schemas.video_frames import take_frames
from mllm_selector_jax.types import InputError, Record, RunError

_FRAMES = b"video_frames"  # the key of this number in the file's metadata
GROUP_ROWS = 16_384  # rows of a Parquet row group, and of a part of the check


class Line(NamedTuple):
  """One row of the pool; the attributes are the table's columns.

  Attributes:
    row: dense index in the pool, over all files.
    id: the record's own, verbatim; other than text as JSON; "row-<row>" if none.
    hash: of conversation and image bytes, see `row_hash.hash_row`; None for a row set
      aside.
    source: where the row comes from.
    images: the images' paths as the record has them, in order.
    image_hashes: SHA-256 of each image file's bytes; empty if one was not readable.
    pixels: hash of the pixels that the model reads of each image, as `image_hashes`.
    sizes: width and height of each image as the model's processor sees it.
    turns, tokens, supervised: counts; 0 for a row set aside.
    image_tokens: how many of the tokens belong to images, with the marks around them.
    tiles, taps: squares that the vision tower reads, and interpolated features.
    prefix_tokens, prefix_tiles, prefix_taps: of each beginning of the row that other
      rows may share, see `prefixes.list_prefixes`.
    prefix_keys: equal where these beginnings are.
    prefix_asked: how many of the tokens of each are of questions.
    status: "ok" or "aside".
    reason, detail: why it is set aside; None for a row that is not.
    truncated: whether the row's end is cut off.
    file, offset, length: where the record stands, see `types.Record`.
    answer: equal where the row's answers are, see `dialogue.hash_answers`; 0 for a row
      set aside, and for all rows of a table that an earlier version wrote.
  """

  row: int
  id: str
  hash: str | None
  source: str
  images: tuple[str, ...]
  image_hashes: tuple[str, ...]
  pixels: tuple[str, ...]
  sizes: tuple[int, ...]
  turns: int
  tokens: int
  supervised: int
  image_tokens: int
  tiles: int
  taps: int
  prefix_tokens: tuple[int, ...]
  prefix_tiles: tuple[int, ...]
  prefix_taps: tuple[int, ...]
  prefix_keys: tuple[int, ...]
  prefix_asked: tuple[int, ...]
  status: str
  reason: str | None
  detail: str | None
  truncated: bool
  file: str
  offset: int
  length: int
  answer: int = 0


_NUMBERS = {
  "row": "int64",
  "turns": "int32",
  "tokens": "int32",
  "supervised": "int32",
  "image_tokens": "int32",
  "tiles": "int32",
  "taps": "int32",
  "truncated": "bool",
  "offset": "int64",
  "length": "int64",
  "answer": "uint64",
}
_LISTS = {
  "images": "string",
  "image_hashes": "string",
  "pixels": "string",
  "sizes": "int32",
  "prefix_tokens": "int32",
  "prefix_tiles": "int32",
  "prefix_taps": "int32",
  "prefix_keys": "uint64",
  "prefix_asked": "int32",
}
# Tables of an earlier version have one image per row, as a text: these columns by
# another name, and none of the others.
_EARLIER = {"images": "image", "image_hashes": "image_hash", "pixels": "pixels"}
_ADDED = {*(_LISTS.keys() - _EARLIER.keys()), "image_tokens", "tiles", "taps"}
_TEXT = [name for name in Line._fields if name not in _NUMBERS and name not in _LISTS]


def _schema():
  import pyarrow as pa

  def find_type(name: str) -> Any:
    if name in _LISTS:
      return pa.list_(pa.type_for_alias(_LISTS[name]))
    return pa.type_for_alias(_NUMBERS.get(name, "string"))

  return pa.schema([(name, find_type(name)) for name in Line._fields])


def make_table(lines: Sequence[Line]) -> Any:
  """Returns the lines as a pyarrow table."""
  import pyarrow as pa

  schema = _schema()
  arrays = [
    pa.array(column, field.type)
    for column, field in zip(zip(*lines, strict=True), schema, strict=True)
  ]
  return pa.Table.from_arrays(arrays, schema=schema)


@contextlib.contextmanager
def open_writer(
  path: str | os.PathLike, video_frames: int | None = None
) -> Iterator[Any]:
  """Opens a Parquet writer whose file appears when the block ends without an error.

  Args:
    path: of the file.
    video_frames: how many frames of a video the rows have as images, which the table
      remembers, since its records are read again; None for none.

  Raises:
    RunError: the file cannot be written.
  """
  import pyarrow.parquet as pq

  path, schema = Path(path), _schema()
  if video_frames is not None:
    schema = schema.with_metadata({_FRAMES: str(video_frames)})
  try:
    with (
      storage.writing(path) as partial,
      open(partial, "wb") as file,
      pq.ParquetWriter(
        file, schema, compression="zstd", write_page_checksum=True
      ) as writer,
    ):
      yield writer
  except OSError as error:
    raise RunError(f"{path}: could not be written ({error.strerror or error}).") from (
      error
    )
  finally:
    partial.unlink(missing_ok=True)


_Column = functools.cached_property


def _lazy(name: str) -> _Column[Any]:
  return functools.cached_property(lambda table: table._read_column(name))


class PoolTable:
  """The checked pool; a column is read from disk when it is first asked for.

  The columns are those of `Line`; numbers are numpy arrays.

  Attributes:
    has_answers: whether the table has the column `answer`, which those of an earlier
      version lack.
  """

  row: _Column[Int[np.ndarray, " N"]] = _lazy("row")
  id: _Column[Text[str]] = _lazy("id")
  hash: _Column[Text[str | None]] = _lazy("hash")
  source: _Column[Text[str]] = _lazy("source")
  images: _Column[Lists[str]] = _lazy("images")
  image_hashes: _Column[Lists[str]] = _lazy("image_hashes")
  pixels: _Column[Lists[str]] = _lazy("pixels")
  sizes: _Column[Lists[int]] = _lazy("sizes")
  turns: _Column[Int[np.ndarray, " N"]] = _lazy("turns")
  tokens: _Column[Int[np.ndarray, " N"]] = _lazy("tokens")
  supervised: _Column[Int[np.ndarray, " N"]] = _lazy("supervised")
  image_tokens: _Column[Int[np.ndarray, " N"]] = _lazy("image_tokens")
  tiles: _Column[Int[np.ndarray, " N"]] = _lazy("tiles")
  taps: _Column[Int[np.ndarray, " N"]] = _lazy("taps")
  prefix_tokens: _Column[Lists[int]] = _lazy("prefix_tokens")
  prefix_tiles: _Column[Lists[int]] = _lazy("prefix_tiles")
  prefix_taps: _Column[Lists[int]] = _lazy("prefix_taps")
  prefix_keys: _Column[Lists[int]] = _lazy("prefix_keys")
  prefix_asked: _Column[Lists[int]] = _lazy("prefix_asked")
  status: _Column[Text[str]] = _lazy("status")
  reason: _Column[Text[str | None]] = _lazy("reason")
  detail: _Column[Text[str | None]] = _lazy("detail")
  truncated: _Column[Bool[np.ndarray, " N"]] = _lazy("truncated")
  file: _Column[Text[str]] = _lazy("file")
  offset: _Column[Int[np.ndarray, " N"]] = _lazy("offset")
  length: _Column[Int[np.ndarray, " N"]] = _lazy("length")
  answer: _Column[UInt64[np.ndarray, " N"]] = _lazy("answer")

  def __init__(self, path: str | os.PathLike):
    import pyarrow.parquet as pq

    self.path = os.fspath(path)
    try:
      metadata = pq.read_metadata(self.path)
    except FileNotFoundError as error:
      raise InputError(f"{self.path} is not there; check the pool first.") from error
    except (OSError, ValueError) as error:
      raise InputError(
        f"{self.path} is not a whole Parquet file; check the pool again."
      ) from error
    names = metadata.schema.to_arrow_schema().names
    self.has_answers = "answer" in names
    self._is_earlier = "image" in names
    optional = {"answer"}
    if self._is_earlier:
      optional |= {*_ADDED, *_EARLIER}
    if missing := sorted(set(Line._fields) - optional - set(names)):
      raise InputError(
        f"{self.path} lacks the columns {', '.join(missing)}; check the pool again."
      )
    self._rows = metadata.num_rows
    frames = (metadata.metadata or {}).get(_FRAMES)
    self._video_frames = None if frames is None else int(frames)

  def __len__(self) -> int:
    return self._rows

  @functools.cached_property
  def ok(self) -> Bool[np.ndarray, " N"]:
    """Which rows can be used."""
    return self.status.equals("ok")

  @functools.cached_property
  def has_image(self) -> Bool[np.ndarray, " N"]:
    """Which rows have images."""
    return self.images.counts > 0

  @functools.cached_property
  def format(self) -> np.ndarray:
    """The format of each row's answers; see `answer_formats.name_formats`."""
    return name_formats(self.turns, self.supervised)

  def image_sizes(self, row: int | np.integer) -> list[tuple[int, int]]:
    """Width and height of each of a row's images; see `sizes`."""
    numbers = self.sizes[row]
    return list(zip(numbers[::2], numbers[1::2], strict=True))

  @functools.cached_property
  def prefixes(self) -> Prefixes:
    """The beginnings that rows may share."""
    return Prefixes(
      self.prefix_tokens.bounds,
      self.prefix_tokens.values,
      self.prefix_tiles.values,
      self.prefix_taps.values,
      self.prefix_keys.values,
      self.prefix_asked.values,
    )

  def _read_column(
    self, name: str
  ) -> Shaped[np.ndarray, " N"] | Text[str | None] | Lists[Any]:
    import pyarrow.parquet as pq

    if name == "answer" and not self.has_answers:
      return np.zeros(len(self), np.uint64)
    is_text = name in _TEXT
    dictionary = [name] if is_text else None
    if self._is_earlier and name in _ADDED:
      raise InputError(
        f"{self.path} was written by an earlier version and lacks the column {name};"
        " check the pool again."
      )
    stored = _EARLIER.get(name, name) if self._is_earlier else name
    if not self._is_earlier and _LISTS.get(name) == "string":
      dictionary = [f"{name}.list.element"]
    try:
      table = pq.read_table(
        self.path,
        columns=[stored],
        read_dictionary=dictionary,
        page_checksum_verification=True,
      )
    except FileNotFoundError as error:
      raise RunError(
        f"{self.path} is no longer there, though it was when the run began: see whether"
        " its disk is still mounted, and give the same command again."
      ) from error
    except OSError as error:
      raise RunError(
        f"{self.path}: column {name} is damaged ({error}); check the pool again."
      ) from error
    if name in _LISTS:
      column = table[stored]
      return Lists(list_texts(column) if self._is_earlier else column)
    return Text(table[name]) if is_text else table[name].to_numpy()

  def record(self, row: int) -> Record:
    """Reads the row's record from the pool's file.

    Raises:
      InputError: the file changed since the pool was checked.
    """
    file = self._files.get(self.file[row])
    record = file.read(int(self.offset[row]), int(self.length[row]))
    if self._video_frames is None:
      return record
    return take_frames(record, self._video_frames)

  def text(self, row: int) -> bytes:
    """Returns the raw bytes for JSON pools, otherwise the serialised record."""
    file = self._files.get(self.file[row])
    return file.text(int(self.offset[row]), int(self.length[row]))

  @functools.cached_property
  def _files(self) -> formats.OpenFiles:
    return formats.OpenFiles()


def read_table(path: str | os.PathLike) -> PoolTable:
  """Opens a checked pool.

  Raises:
    InputError: it is not there, or not one.
  """
  return PoolTable(path)
