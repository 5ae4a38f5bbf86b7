"""Orders packed rows so that any run of consecutive ones holds about the mean."""

import numpy as np
from jaxtyping import Int

_GOLDEN = np.uint64(11_400_714_819_323_198_485)  # 2^64 over the golden ratio, odd


def interleave(
  tiles: Int[np.ndarray, " r"], learned: Int[np.ndarray, " r"]
) -> Int[np.ndarray, " r"]:
  """Returns the place of each row, so that neighbours differ and runs are alike.

  Rows sorted by tiles, then supervised tokens, are dealt out by the multiples of
  the golden ratio: any run of places takes nearly equally spaced ranks.
  """
  by_size = np.lexsort((learned, tiles))
  with np.errstate(over="ignore"):
    multiples = np.arange(1, len(by_size) + 1, dtype=np.uint64) * _GOLDEN
  place = np.empty(len(by_size), np.int64)
  place[by_size] = np.argsort(multiples)
  return place
