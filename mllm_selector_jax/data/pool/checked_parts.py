"""Stores a check in parts, so that an interrupted check resumes after the last one.

A part is one row group of the pool's table, with what the summary counts beside it.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mllm_selector_jax import storage
from mllm_selector_jax.data.pool import pool_table
from mllm_selector_jax.data.tokens.specials import Count
from mllm_selector_jax.types import RunError

_BESIDE = ("image_bytes", "remarks", "specials")  # columns beside a line's own


class Checked(NamedTuple):
  """A line of the table, and what the summary counts beside it.

  Attributes:
    line: of the pool's table.
    image_bytes: size of each image's file.
    remarks: what is told of the row though it is usable, see `pool_summary`.
    specials: the special tokens that its turns spell.
  """

  line: pool_table.Line
  image_bytes: tuple[int, ...] = ()
  remarks: tuple[str, ...] = ()
  specials: tuple[Count, ...] = ()


def count_parts(out: str | os.PathLike) -> int:
  """Counts the complete parts of a table."""
  folder, count = _place(Path(out)), 0
  while _name_part(folder, count).exists():
    count += 1
  return count


def _place(out: Path) -> Path:
  return out.with_name(f".{out.name}.parts")


def _name_part(folder: Path, number: int) -> Path:
  return folder / f"{number:06d}.parquet"


class Parts:
  """The complete parts, and the one that is being filled.

  Args:
    out: the table's file, beside which the parts lie until it is whole.
    resume: whether the parts that are there are kept; otherwise they are removed.

  Raises:
    RunError: the folder cannot be written to.
  """

  def __init__(self, out: str | os.PathLike, resume: bool):
    self._out = Path(out)
    self.folder = _place(self._out)
    self._waiting: list[Checked] = []
    if not resume:
      shutil.rmtree(self.folder, ignore_errors=True)
    self.count = count_parts(self._out)

  @property
  def rows(self) -> int:
    """Rows of the whole parts."""
    return self.count * pool_table.GROUP_ROWS

  def read(self) -> Iterator[Checked]:
    """Yields the rows of the complete parts, in order."""
    import pyarrow.parquet as pq

    for number in range(self.count):
      columns = pq.read_table(
        self._path(number), page_checksum_verification=True
      ).to_pydict()
      beside = [columns.pop(name) for name in _BESIDE]
      lines = (columns[name] for name in pool_table.Line._fields)
      for *cells, sizes, remarks, specials in zip(*lines, *beside, strict=True):
        counts = tuple(Count(**count) for count in specials)
        line = pool_table.Line._make(
          tuple(cell) if isinstance(cell, list) else cell for cell in cells
        )
        yield Checked(line, tuple(sizes), tuple(remarks), counts)

  def add(self, checked: Checked) -> None:
    self._waiting.append(checked)
    if len(self._waiting) == pool_table.GROUP_ROWS:
      self._write()

  def finish(self, video_frames: int | None = None) -> None:
    """Joins the parts to the table, which appears when it is complete.

    Args:
      video_frames: how many frames of a video its rows have.

    Raises:
      RunError: it cannot be written.
    """
    import pyarrow.parquet as pq

    with pool_table.open_writer(self._out, video_frames) as writer:
      for number in range(self.count):
        found = pq.read_table(self._path(number), page_checksum_verification=True)
        writer.write_table(found.drop_columns(list(_BESIDE)))
      if self._waiting:
        writer.write_table(pool_table.make_table([own.line for own in self._waiting]))
    shutil.rmtree(self.folder, ignore_errors=True)

  def _write(self) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines, *beside = zip(*self._waiting, strict=True)
    sizes, remarks, specials = beside
    columns = pool_table.make_table(lines)
    counts = [[count._asdict() for count in row] for row in specials]
    count_type = pa.struct(
      {"name": pa.string(), "kept": pa.bool_(), "times": pa.int64()}
    )
    for name, array in zip(
      _BESIDE,
      (
        pa.array([list(row) for row in sizes], pa.list_(pa.int64())),
        pa.array([list(row) for row in remarks], pa.list_(pa.string())),
        pa.array(counts, pa.list_(count_type)),
      ),
      strict=True,
    ):
      columns = columns.append_column(name, array)
    path = self._path(self.count)
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
      with storage.writing(path) as partial, open(partial, "wb") as file:
        pq.write_table(columns, file, compression="zstd", write_page_checksum=True)
    except OSError as error:
      raise RunError(
        f"{path}: could not be written ({error.strerror or error})."
      ) from error
    self._waiting.clear()
    self.count += 1

  def _path(self, number: int) -> Path:
    return _name_part(self.folder, number)
