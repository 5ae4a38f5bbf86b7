"""What the next pass of k-means starts from."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.overseer import Keeper


class Pass(NamedTuple):
  """What the next pass starts from.

  Attributes:
    iteration: the number of passes that were made.
    centres: the centres after them.
    sums, sizes: the sums and the numbers of each cluster's rows in each part.
    inertia: the inertia of the last pass.
  """

  iteration: int
  centres: Float[np.ndarray, "K D"]
  sums: Float[np.ndarray, "P K D"]
  sizes: Int[np.ndarray, "P K"]
  inertia: float


def read_pass(keeper: Keeper) -> Pass | None:
  """Reads the last pass that was kept; returns None if there is none."""
  for kept in keeper.read():
    iteration, inertia = int(kept["iteration"]), float(kept["inertia"])
    return Pass(iteration, kept["centres"], kept["sums"], kept["sizes"], inertia)
  return None
