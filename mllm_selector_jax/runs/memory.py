"""Configures the allocator to keep memory that a step frees for the next step."""

import ctypes

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
  """Tells glibc not to return freed memory to the system.

  XLA on CPUs allocates the buffers of a step anew in each step. By default, glibc maps
  and unmaps the large ones each time, and the kernel clears every page, which takes a
  quarter of a step of the tiny model (benchmarks/allocator.py). This must be called
  before the threads that allocate are started.

  Returns:
    Whether the C library is glibc and accepted the settings.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError):
    return False
  largest = 2**31 - 1
  settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, largest))
  return all([mallopt(name, value) == 1 for name, value in settings])
