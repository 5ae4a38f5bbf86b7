"""What loops of a selection that take minutes are given: a watch and a keeper."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np

Progress = Callable[[int, int], None]


def ignore(done: int, total: int) -> None:
  """Shows no progress."""


@runtime_checkable
class Watch(Protocol):
  """Shows the progress of a loop."""

  def __call__(self, title: str, unit: str = "row") -> AbstractContextManager[Progress]:
    """Returns a context of a function to call with the amount done and the total."""


@runtime_checkable
class Keeper(Protocol):
  """Keeps what one loop has done, so that a command that was ended goes on from it.

  A loop first reads what is kept. Arrays that it hands over may be written later, and
  not at all if the loop ends before.
  """

  def read(self) -> Iterator[dict[str, np.ndarray]]:
    """Yields what is kept, in the order in which it was added."""

  def add(self, **arrays: np.ndarray) -> None:
    """Keeps arrays that follow, along their first axis, on those of the same names."""

  def replace(self, **arrays: Any) -> None:
    """Keeps arrays or numbers in place of all that was kept before."""


class Nothing:
  """Keeps nothing; see `Keeper`."""

  def read(self) -> Iterator[dict[str, np.ndarray]]:
    return iter(())

  def add(self, **arrays: np.ndarray) -> None:
    pass

  def replace(self, **arrays: Any) -> None:
    pass


NOTHING = Nothing()


@dataclasses.dataclass(frozen=True)
class Overseer:
  """Gives the loops of a selection a watch and a keeper; by default they do nothing.

  Attributes:
    watch: shows the progress of a loop.
    keep: returns the keeper of a loop, called with the loop's name and all that decides
      its result: numbers, texts, arrays and `UnitRows`. What was kept by a loop that
      was made from anything else is not read.
  """

  watch: Watch = lambda title, unit="row": contextlib.nullcontext(ignore)
  keep: Callable[..., Keeper] = lambda name, *made_from: NOTHING


NOBODY = Overseer()
