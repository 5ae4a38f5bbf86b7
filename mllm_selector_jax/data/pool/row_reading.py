"""Goes through a pool's records, and reads each as a row that is to be checked."""

import collections
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mllm_selector_jax.data import formats, record_schemas
from mllm_selector_jax.data.files import mixture
from mllm_selector_jax.data.files.disk_table import DiskTable
from mllm_selector_jax.data.pool import sources
from mllm_selector_jax.data.record_schemas.video_frames import take_frames
from mllm_selector_jax.types import Picture, Record, RowError

NO_NAME = "image"  # begins the name of an image that has none
_UNNAMED = re.compile(rf"{NO_NAME}-[0-9]+(-[0-9]+)?")


class PendingRow(NamedTuple):
  """What is known of a row before its image is read and its text tokenised.

  Attributes:
    row: its number in the pool.
    file, offset, length: where its record stands, in bytes or records.
    done: the share of the pool's bytes that has been read.
    id, source: its labels.
    images: the names of its images.
    pictures: the images themselves, as the record names or holds them.
    content: its conversation and images; None where they cannot be read.
    fault: why it is set aside; None where nothing is wrong so far.
  """

  row: int
  file: str
  offset: int
  length: int
  done: float
  id: str
  source: str
  images: tuple[str, ...] = ()
  pictures: tuple[Picture, ...] = ()
  content: record_schemas.Content | None = None
  fault: RowError | None = None


class PoolReading:
  """Goes through the files' records, and counts those that are not taken.

  Args:
    parts: of the pool.
    seed: of the rows that a mixture takes at random.
    video_frames: how many frames of a video are taken as images; None for none.

  Attributes:
    not_taken: how many records of each file the mixture leaves out.
    with_frames: how many records have frames of a video as images.
  """

  def __init__(
    self,
    parts: Sequence[mixture.PoolPart],
    seed: int,
    video_frames: int | None = None,
  ):
    self.with_frames = 0
    self._video_frames = video_frames
    self.not_taken: collections.Counter[str] = collections.Counter()
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
        if self._video_frames is not None:
          framed = take_frames(record, self._video_frames)
          self.with_frames += framed is not record
          record = framed
        yield next(number), part.file, record, done


def _holds(ascending: np.ndarray, value: int) -> bool:
  place = np.searchsorted(ascending, value)
  return bool(place < len(ascending) and ascending[place] == value)


def describe_row(
  row: int,
  file: str,
  record: Record,
  done: float,
  find_source: sources.FindSource,
  ids: DiskTable | None,
  max_images: int | None = None,
) -> PendingRow:
  """Reads a record as a conversation with images, or finds why it cannot be used.

  Args:
    row: its number in the pool.
    file: that holds it.
    record: as the file's format gives it.
    done: the share of the pool's bytes that has been read.
    find_source: names the row's source.
    ids: those of earlier rows, where a row that repeats one is set aside.
    max_images: rows with more images are set aside.
  """
  place = row, file, record.offset, record.length, done
  if record.value is None:
    # It has no id to be found by.
    where = f"{file}, byte {record.offset:,}"
    assert record.reason is not None, "a record without a value has a reason"
    unusable = RowError(record.reason, f"{where}: {record.detail}")
    name = record.id or f"row-{row}"
    return PendingRow(*place, name, record.source or "unknown", fault=unusable)
  label = record.value.get("id")
  if label is None:
    label = f"row-{row}" if record.id is None else record.id
  name = sources.as_text(label)
  pictures: tuple[Picture, ...] = ()
  content: record_schemas.Content | None = None
  fault: RowError | None = None
  try:
    content = record_schemas.read_content(record)
    pictures = content.pictures
    check_count(len(pictures), max_images)
  except RowError as error:
    fault = error.with_traceback(None)
    if content is None:
      pictures = _find_pictures(record)
  images = name_pictures(pictures, record.offset)
  source = find_source(record, images[0] if images else None, file)
  if ids is not None and not ids.add(name):
    fault = RowError("duplicate id", "an earlier row has this id")
  return PendingRow(*place, name, source, images, pictures, content, fault)


def check_count(images: int, max_images: int | None) -> None:
  """Raises a RowError if a record has more images than are allowed; None allows all."""
  if max_images is not None and images > max_images:
    raise RowError("too many images", f"the record has {images}, {max_images} allowed")


def name_pictures(pictures: Sequence[Picture], offset: int) -> tuple[str, ...]:
  """The images' names; one without a name is called by its record and its number."""
  return tuple(
    picture.name or f"{NO_NAME}-{offset}" + (f"-{number}" if number else "")
    for number, picture in enumerate(pictures)
  )


def is_unnamed(name: str) -> bool:
  """Whether `name_pictures` made up this name."""
  return _UNNAMED.fullmatch(name) is not None


def _find_pictures(record: Record) -> tuple[Picture, ...]:
  """The images of a row that cannot be used, to be shown nevertheless."""
  try:
    return record_schemas.read_pictures(record)
  except RowError:
    return ()
