"""Orders rows by a greedy choice: the rows to choose from, lazy picks, and the rest."""

import heapq
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.selection.eligibility import Candidates
from mllm_selector_jax.selection.limits import Room
from mllm_selector_jax.selection.overseer import NOTHING, Keeper, Progress, ignore

SHOWN = 1 << 10  # picks after which they are kept, and progress is shown


class Picked(NamedTuple):
  """Rows that were picked greedily.

  Attributes:
    places: the places of the picks in the drawn order.
    gains: the gain of each pick, which never increases; inf if it was forced.
    after: the gain of each row of the drawn order after the picks.
  """

  places: Int[np.ndarray, " k"]
  gains: Float[np.ndarray, " k"]
  after: Float[np.ndarray, " n"]


@runtime_checkable
class Gains(Protocol):
  """The gains of rows, which never increase as rows are taken."""

  def all(self) -> Int[np.ndarray, " n"]:
    """Returns the gain of every row."""

  def one(self, row: int) -> int:
    """Returns the gain of a row."""

  def take(self, row: int) -> None:
    """Takes a row."""


Fits = Callable[[int], bool]


def fit_all(row: int) -> bool:
  """Lets every row be taken."""
  return True


def fit_in(room: Room | None, rows: Int[np.ndarray, " n"], forced: int = 0) -> Fits:
  """Returns a function that takes a row if there is room for it, and says so.

  Args:
    room: the room for rows; None if there are no limits.
    rows: the rows by the numbers that the function is called with.
    forced: the number of rows, the first ones, that are taken already.
  """
  if room is None:
    return fit_all
  room.add(rows[:forced])

  return lambda place: room.take(int(rows[place]))


def draw_order(candidates: Candidates) -> tuple[Int[np.ndarray, " n"], int]:
  """Returns the remaining rows in drawn order, forced ones first, and their number."""
  rows = np.flatnonzero(candidates.remaining)
  forced = candidates.forced[rows]
  return rows[np.lexsort((candidates.tie[rows], ~forced))], int(forced.sum())


def pick_lazily(
  gains: Gains,
  forced: int,
  count: int,
  unit: float = 1.0,
  fits: Fits = fit_all,
  progress: Progress = ignore,
  keeper: Keeper = NOTHING,
) -> Picked:
  """Picks the row of the highest gain, repeatedly (Minoux 1978).

  The gain of a row is computed again only when it is the first by an older one. Of rows
  of equal gain, the one that stands first is picked.

  Args:
    gains: the gains, integers.
    forced: the number of rows, the first ones, that are picked before all others.
    count: the number of rows to pick.
    unit: the value of 1 in the gains.
    fits: says whether a row may be taken after those that it said yes to; such a row is
      picked, and others are passed over. It is not asked about forced rows.
    progress: called with the number of picks and `count`, now and then.
    keeper: keeps the picks; one of the same arguments leads to the same result.
  """
  picks = list(range(min(forced, count)))
  values = [np.inf] * len(picks)
  for kept in keeper.read():
    picks += kept["picks"].tolist()
    values += kept["values"].tolist()
  answers = [fits(row) for row in picks[forced:]]
  assert all(answers), "rows that were picked fit again"
  for row in picks:
    gains.take(row)
  first, known = gains.all(), len(picks)
  others = np.setdiff1d(np.arange(forced, len(first)), picks)
  bounds = [(-int(first[row]), row) for row in others.tolist()]
  heapq.heapify(bounds)
  progress(known, count)
  while bounds and len(picks) < count:
    _, row = heapq.heappop(bounds)
    current = (-gains.one(row), row)
    # Gains only fall, so a row that is still the first after its update is the best.
    if bounds and current > bounds[0]:
      heapq.heappush(bounds, current)
    elif fits(row):
      gains.take(row)
      picks.append(row)
      values.append(-current[0] * unit)
      if len(picks) - known == SHOWN:
        new = slice(known, known + SHOWN)
        keeper.add(picks=np.array(picks[new]), values=np.array(values[new]))
        known = len(picks)
        progress(known, count)
  progress(len(picks), count)
  return Picked(np.array(picks, np.int64), np.array(values), gains.all() * unit)


def order_by_gain(
  candidates: Candidates, rows: Int[np.ndarray, " n"], picked: Picked
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " N"]]:
  """Orders rows: the picks, then the others by their gain after them.

  Args:
    candidates: from `sort_out`.
    rows: the remaining rows in drawn order.
    picked: the picks among them.

  Returns:
    All remaining rows in order, and the gain of every row, NaN for those that do not
    remain.
  """
  gain = np.full(len(candidates.tie), np.nan)
  gain[rows] = picked.after
  gain[rows[picked.places]] = np.minimum.accumulate(picked.gains)
  rest = np.ones(len(rows), bool)
  rest[picked.places] = False
  others = rows[rest]
  others = others[np.argsort(-gain[others], kind="stable")]
  return np.concatenate([rows[picked.places], others]), gain
