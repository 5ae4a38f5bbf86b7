"""What k-means tells of its passes, and what the next pass starts from."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

Progress = Callable[[int, int], None]
Watch = Callable[[str], AbstractContextManager[Progress]]


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


@runtime_checkable
class Keeper(Protocol):
  """Keeps the last pass, so that a clustering that was ended goes on from it."""

  def read(self) -> Pass | None: ...

  def write(self, made: Pass) -> None: ...
