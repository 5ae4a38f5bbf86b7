"""Reads rows of length 1 from a matrix that may be larger than the memory."""

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

STEP = 1 << 14  # rows whose lengths are computed at a time: 16 MB of 256 dimensions
MARKED = 1 << 10  # rows that are read to tell two pools apart


@runtime_checkable
class Matrix(Protocol):
  """An array [N, D], such as a memory-mapped one, that gives rows by their numbers."""

  @property
  def shape(self) -> tuple[int, ...]: ...

  def __getitem__(self, rows) -> np.ndarray: ...


class UnitRows:
  """Rows of a matrix, scaled to length 1 when they are read.

  Only the length of each row is held in memory. A row that is not finite, or whose
  length is not, becomes 0.

  Attributes:
    shape: N, the number of rows, and D.
    finite: whether each row and its length are finite in float32.
  """

  shape: tuple[int, int]
  finite: Bool[np.ndarray, " N"]

  def __init__(self, source: Matrix):
    """Computes the lengths in one pass over `source`, which is not copied."""
    self._source = source
    self.shape = (source.shape[0], source.shape[1])
    self._length = np.empty(len(self), np.float32)
    for start in range(0, len(self), STEP):
      part = np.asarray(source[start : start + STEP], np.float32)
      square = np.einsum("nd,nd->n", part, part, dtype=np.float64)
      with np.errstate(over="ignore"):  # a length above float32's range becomes inf
        self._length[start : start + STEP] = np.sqrt(square)
    self.finite = np.isfinite(self._length)
    np.maximum(self._length, 1e-30, out=self._length)

  def __len__(self) -> int:
    return self.shape[0]

  def rows(self, places: Int[np.ndarray, " n"] | slice) -> Float[np.ndarray, "n D"]:
    """Reads rows by their numbers, as float32."""
    values = np.array(self._source[places], np.float32)
    finite = self.finite[places]
    if not finite.all():
      values[~finite] = 0
    values /= np.where(finite, self._length[places], 1)[:, None]
    return values

  def __getitem__(self, places) -> Float[np.ndarray, "n D"]:
    """Reads rows as `rows` does, so that this is a `Matrix` too."""
    return self.rows(places)

  def fingerprint(self) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "n D"]]:
    """Returns what tells these rows from others: all lengths, and some of the rows."""
    places = np.linspace(0, len(self) - 1, min(len(self), MARKED)).astype(np.int64)
    return self._length, self.rows(places)

  def sum_rows(self) -> Float[np.ndarray, " D"]:
    """Sums all rows, in float64."""
    total = np.zeros(self.shape[1])
    for start in range(0, len(self), STEP):
      total += self.rows(slice(start, start + STEP)).sum(0, dtype=np.float64)
    return total


class Stacked:
  """Matrices [n, D] one above the other, and some rows of them; none is copied.

  Attributes:
    shape: the number of rows, and D.
  """

  def __init__(
    self,
    parts: list[Shaped[np.ndarray, "_ D"]],
    rows: Int[np.ndarray, " n"] | None = None,
  ):
    """Stacks memory-mapped arrays.

    Args:
      parts: the arrays, of the same width; at least one.
      rows: the rows of the stack to give, by default all.
    """
    self._parts, self._rows = parts, rows
    self._starts = np.cumsum([0, *(len(part) for part in parts)])
    count = int(self._starts[-1]) if rows is None else len(rows)
    self.shape = (count, parts[0].shape[1])

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(
    self, places: Int[np.ndarray, " n"] | slice
  ) -> Shaped[np.ndarray, "n D"]:
    if isinstance(places, slice):
      places = np.arange(*places.indices(len(self)))
    rows = places if self._rows is None else self._rows[places]
    part = np.searchsorted(self._starts, rows, side="right") - 1
    out = np.empty((len(rows), self.shape[1]), self._parts[0].dtype)
    for number in np.unique(part):
      here = part == number
      out[here] = self._parts[number][rows[here] - self._starts[number]]
    return out
