"""The allocator's settings: memory that a step frees is kept for the next one."""

import ctypes

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
  """Tells glibc to give nothing back; whether there is a glibc that obeyed.

  XLA on CPUs allocates a step's buffers anew each step. By default glibc maps
  large ones and unmaps them again, and the kernel zeroes every page each time: a
  quarter of a step of the tiny model (benchmarks/allocator.py). To be called before
  the threads that allocate are there.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError):
    return False
  largest = 2**31 - 1
  settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, largest))
  return all([mallopt(name, value) == 1 for name, value in settings])
