"""Sorts rows fast by a group, a 64-bit key, a second key and the row number.

`np.sort` is two to three times faster than `np.argsort`. The group, the upper bits of
the key and the row number are therefore packed into one integer, and these are sorted.
Rows whose packed group and key are equal, of which there are few, are then sorted by
the full keys.
"""

import numpy as np
from jaxtyping import Float, Int, UInt64

LEAST_BITS = 16  # if fewer bits of the key can be packed, packing does not pay


def float_key(values: Float[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
  """Maps finite values to unsigned integers of the same order."""
  bits = (np.asarray(values, np.float64) + 0.0).view(np.uint64)  # -0 becomes 0
  sign = np.uint64(1 << 63)
  return np.where(bits & sign, ~bits, bits | sign)


def sort_rows(
  key: UInt64[np.ndarray, " N"],
  group: Int[np.ndarray, " N"] | None = None,
  then: UInt64[np.ndarray, " N"] | None = None,
) -> Int[np.ndarray, " N"]:
  """Returns row numbers sorted by group, key, `then` and row number, ascending.

  Args:
    key: the first key inside a group.
    group: not negative; by default all rows are in one group.
    then: the second key; none by default.
  """
  count = len(key)
  if count < 2:
    return np.arange(count)
  row_bits = (count - 1).bit_length()
  group_bits = 0 if group is None else int(group.max()).bit_length()
  key_bits = 64 - row_bits - group_bits
  if key_bits < LEAST_BITS:
    return _lexsort(np.arange(count), key, then, group)
  packed = key >> np.uint64(64 - key_bits)
  packed <<= np.uint64(row_bits)
  packed |= np.arange(count, dtype=np.uint64)
  if group is not None and group_bits:
    packed |= group.astype(np.uint64) << np.uint64(64 - group_bits)
  packed.sort()
  rows = (packed & np.uint64((1 << row_bits) - 1)).view(np.int64)
  packed >>= np.uint64(row_bits)
  same = packed[1:] == packed[:-1]
  if same.any():
    unsettled = np.zeros(count, bool)
    unsettled[1:] = same
    unsettled[:-1] |= same
    places = np.flatnonzero(unsettled)
    tied = rows[places]
    rows[places] = tied[_lexsort(tied, key, then, None, packed[places])]
  return rows


def _lexsort(rows, key, then, group=None, first=None) -> Int[np.ndarray, " n"]:
  keys = [rows] if then is None else [rows, then[rows]]
  keys.append(key[rows])
  keys += [] if group is None else [group[rows]]
  keys += [] if first is None else [first]
  return np.lexsort(keys)
