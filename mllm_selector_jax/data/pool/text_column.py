"""A column of text that stays in Arrow's memory: no Python object a row."""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
from jaxtyping import Bool, Int, Shaped

_BLOCK = 65_536  # rows that are Python objects at once where all are gone through


Value = TypeVar("Value", bound=str | None)


class Text(Generic[Value]):
  """Texts, of which some may be None; each distinct one is held once.

  Indexed by a number it gives a str or None, by a slice, a mask or an array of
  numbers a numpy array of such objects.

  Args:
    column: a chunked Arrow array of text, or of dictionaries of text.

  Attributes:
    codes: equal where the text is, counted from 0; -1 for None.
  """

  codes: Int[np.ndarray, " N"]

  def __init__(self, column: Any):
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
      column = column.dictionary_encode()
    array = column.unify_dictionaries().combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
      array = pa.array([], column.type)
    self._names = array.dictionary
    self.codes = array.indices.fill_null(-1).to_numpy()

  def __len__(self) -> int:
    return len(self.codes)

  @overload
  def __getitem__(self, where: int | np.integer) -> Value: ...

  @overload
  def __getitem__(
    self, where: slice | Sequence[int] | np.ndarray
  ) -> Shaped[np.ndarray, " K"]: ...

  def __getitem__(self, where: Any) -> Value | Shaped[np.ndarray, " K"]:
    codes = self.codes[where]
    if not isinstance(codes, np.ndarray):
      value: Any = self._names[int(codes)].as_py() if codes >= 0 else None
      return value
    used, place = np.unique(codes, return_inverse=True)
    names = self._names.take(used[used >= 0]).to_pylist()
    return np.array([None, *names] if len(used) > len(names) else names, object)[place]

  def __iter__(self) -> Iterator[Value]:
    for start in range(0, len(self), _BLOCK):
      yield from self[start : start + _BLOCK]

  def tolist(self) -> list[Value]:
    return list(self)

  def equals(self, text: str) -> Bool[np.ndarray, " N"]:
    """Which rows hold this text."""
    code = self._names.index(text).as_py()
    return self.codes == code if code >= 0 else np.zeros(len(self), bool)

  def find(self, texts: Sequence[str]) -> Int[np.ndarray, " K"]:
    """The code of each of these texts, -1 for one that no row holds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
      wanted = pa.array(texts, self._names.type)
    except UnicodeEncodeError:  # lone surrogates, which stand in no column
      whole = [text.encode(errors="ignore").decode() == text for text in texts]
      wanted = pa.array(texts, self._names.type, mask=~np.array(whole))
    found = pc.index_in(wanted, value_set=self._names)
    return np.array(found.fill_null(-1))

  def __arrow_array__(self, type: Any = None) -> Any:
    import pyarrow as pa

    codes = pa.array(self.codes, mask=self.codes < 0)
    array = self._names.take(codes)
    return array if type is None else array.cast(type)
