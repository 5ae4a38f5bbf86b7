"""Sorts rows fast by a group, a 64-bit key, a second key and the row number.

`np.sort` is many times faster than `np.argsort`. The group, the upper bits of the key
and the row number are therefore packed into one integer, and these are sorted. Rows
whose packed group and key are equal, of which there are few, are then sorted by the
full keys, unless the packed bits hold the whole key.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

LEAST_BITS = 16  # if fewer bits of a longer key can be packed, packing does not pay
CHUNK = 1 << 16  # rows; the intermediate arrays of a chunk stay in the cache


def chunks(count: int) -> Iterator[slice]:
  """Divides `count` rows into slices of `CHUNK` rows, the last one shorter.

  Expressions over a whole pool spend most of their time on new memory for their
  intermediate arrays. Evaluated by chunks, they reuse the same few pages.
  """
  for start in range(0, count, CHUNK):
    yield slice(start, min(start + CHUNK, count))


def float_key(values: Float[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
  """Maps finite values to unsigned integers of the same order."""
  keys = (np.asarray(values, np.float64) + 0.0).view(np.uint64)  # -0 becomes 0
  sign = np.uint64(1 << 63)
  for part in chunks(len(keys)):
    # All bits of a negative number are inverted, of another number only the sign.
    negative = (keys[part].view(np.int64) >> 63).view(np.uint64)
    keys[part] ^= negative | sign
  return keys


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
  return sort_runs(key, group, then)[0]


def sort_runs(
  key: UInt64[np.ndarray, " N"],
  group: Int[np.ndarray, " N"] | None = None,
  then: UInt64[np.ndarray, " N"] | None = None,
) -> tuple[Int[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
  """Sorts rows as `sort_rows` does, and finds runs of equal keys.

  Returns:
    The row numbers; and for each of them whether its group or its key differs from
    that of the row before it.
  """
  count = len(key)
  first = np.ones(count, bool)
  if count < 2:
    return np.arange(count), first
  low, key_bits, spare_bits = _span(key)
  row_bits = (count - 1).bit_length()
  group_bits = 0 if group is None else int(group.max()).bit_length()
  room = 64 - row_bits - group_bits
  if room < min(key_bits, LEAST_BITS):
    rows = _lexsort(np.arange(count), key, then, group)
    first[1:] = key[rows[1:]] != key[rows[:-1]]
    if group is not None:
      first[1:] |= group[rows[1:]] != group[rows[:-1]]
    return rows, first
  lost_bits = max(0, key_bits - room)
  packed = np.empty(count, np.uint64)
  for part in chunks(count):
    values = (key[part] - low) >> np.uint64(spare_bits + lost_bits)
    values <<= np.uint64(row_bits)
    values |= np.arange(part.start, part.stop, dtype=np.uint64)
    if group is not None and group_bits:
      values |= group[part].astype(np.uint64) << np.uint64(64 - group_bits)
    packed[part] = values
  packed.sort()
  for part in chunks(count - 1):
    differing = packed[part] ^ packed[part.start + 1 : part.stop + 1]
    first[part.start + 1 : part.stop + 1] = differing >> np.uint64(row_bits) != 0
  packed &= np.uint64((1 << row_bits) - 1)
  rows = packed.view(np.int64)
  if lost_bits or then is not None:
    _settle(rows, first, key, then)
  return rows, first


def _span(key: UInt64[np.ndarray, " N"]) -> tuple[np.uint64, int, int]:
  """Returns the smallest key, and of the distances to it the used and the zero bits.

  The bits that are zero in all distances are the lowest: float32 values, held as
  float64, have many of them.
  """
  low, used = key.min(), np.uint64(0)
  for part in chunks(len(key)):
    used |= np.bitwise_or.reduce(key[part] - low)
  bits = int(used)
  zeros = (bits & -bits).bit_length() - 1 if bits else 0
  return low, bits.bit_length() - zeros, zeros


def _settle(rows, first, key, then) -> None:
  """Sorts each run of rows by the full keys, and divides it, in place."""
  unsettled = ~first
  unsettled[:-1] |= unsettled[1:]
  places = np.flatnonzero(unsettled)
  if not len(places):
    return
  run = np.cumsum(first[places])
  tied = rows[places]
  tied = tied[_lexsort(tied, key, then, None, run)]
  rows[places] = tied
  first[places[1:]] |= key[tied[1:]] != key[tied[:-1]]


def _lexsort(rows, key, then, group=None, first=None) -> Int[np.ndarray, " n"]:
  keys = [rows] if then is None else [rows, then[rows]]
  keys.append(key[rows])
  keys += [] if group is None else [group[rows]]
  keys += [] if first is None else [first]
  return np.lexsort(keys)
