"""Best fit: each size goes into the bin in which it leaves the least room."""

import numpy as np
from jaxtyping import Int


def best_fit(sizes: Int[np.ndarray, " t"], room: int) -> Int[np.ndarray, " t"]:
  """Assigns each size, in order, to a bin; a bin is opened if none has room.

  Args:
    sizes: from 1 to `room`. Sorted from the largest down, this is best-fit decreasing.
    room: of an empty bin.

  Returns:
    Numbers of bins, in the order in which they were opened.
  """
  by_room: dict[int, list[int]] = {}
  occupied = 0  # bit r: some bin has r tokens of room
  opened = 0
  bins = []
  for size in sizes.tolist():
    fitting = occupied >> size
    if fitting:
      left = (fitting & -fitting).bit_length() - 1
      found = by_room[size + left]
      number = found.pop()
      if not found:
        occupied ^= 1 << (size + left)
    else:
      left = room - size
      number = opened
      opened += 1
    bins.append(number)
    by_room.setdefault(left, []).append(number)
    occupied |= 1 << left
  return np.array(bins, np.int64)
