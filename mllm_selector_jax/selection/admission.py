"""Goes through rows in an order and takes those whose values are not full.

Whether a row fits depends on the rows that were taken before it, so the definition is a
loop over rows. Most rows can be decided together, however: between the rows that are
surely taken and those that may be, the number of rows of a value that come before a row
is known within bounds, and often these suffice. What is decided makes the bounds
narrower; a few rounds leave few rows, or none, to the loop.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

MOST_ROUNDS = 30  # after which the loop is faster
LEAST_ROWS = 1000  # undecided rows that the loop takes without another round


class _Pairs(NamedTuple):
  """Pairs of an undecided row and one of its values, sorted by value and then by place.

  Attributes:
    place: the place of the row in the order.
    value: the value.
    before: how many rows of the value are taken before, by what is decided.
  """

  place: Int[np.ndarray, " p"]
  value: Int[np.ndarray, " p"]
  before: Int[np.ndarray, " p"]

  def before_each(self, which: Bool[np.ndarray, " p"]) -> Int[np.ndarray, " p"]:
    """Counts for each pair the pairs of the same value before it that are marked."""
    total = np.cumsum(which) - which
    begins = np.flatnonzero(np.diff(self.value, prepend=-1))
    lengths = np.diff(begins, append=len(self.value))
    return total - np.repeat(total[begins], lengths)


def admit(
  order: Int[np.ndarray, " n"],
  bounds: Int[np.ndarray, " N1"],
  index: Int[np.ndarray, " P"],
  most: Int[np.ndarray, " V"],
  count: Int[np.ndarray, " V"],
  least: Int[np.ndarray, " V"] | None = None,
) -> Bool[np.ndarray, " n"]:
  """Takes the rows of an order that fit, one after the other.

  A row fits if all its values have given fewer rows than they may.

  Args:
    order: different rows, the first one first.
    bounds, index: the values of each row, as in `limits.Column`.
    most: the number of rows that each value may give.
    count: the number of rows that each value has given before.
    least: if given, rows of which no value has given fewer than this are passed over.

  Returns:
    For each row of the order, whether it is taken.
  """
  sizes = np.diff(bounds)[order]
  place = np.repeat(np.arange(len(order)), sizes)
  offset = np.repeat(bounds[:-1][order] - np.cumsum(sizes) + sizes, sizes)
  value = index[np.arange(len(place)) + offset]
  by_value = np.argsort(value, kind="stable")
  pairs = _Pairs(place[by_value], value[by_value], count[value[by_value]])
  taken = np.zeros(len(order), bool)
  taken[sizes == 0] = least is None
  for _ in range(MOST_ROUNDS):
    taken, pairs = _decide(taken, pairs, most, least)
    if len(pairs.place) <= LEAST_ROWS:
      break
  return _finish(taken, pairs, most, least)


def _decide(taken, pairs, most, least) -> tuple[np.ndarray, _Pairs]:
  """Decides the rows that can be, and returns the pairs of the others."""
  value = pairs.value
  highest = pairs.before + pairs.before_each(np.ones(len(value), bool))
  fits = ~_mark(taken, pairs, highest >= most[value])
  refused = _mark(taken, pairs, pairs.before >= most[value])
  if least is not None:
    fits &= _mark(taken, pairs, highest < least[value])
    refused |= ~_mark(taken, pairs, pairs.before < least[value])
  taken, here = taken.copy(), fits[pairs.place]
  taken[pairs.place[here]] = True
  before = pairs.before + pairs.before_each(here)
  left = ~(here | refused[pairs.place])
  return taken, _Pairs(pairs.place[left], value[left], before[left])


def _mark(taken, pairs, which) -> Bool[np.ndarray, " n"]:
  """Marks the rows of which one pair or more is marked."""
  mask = np.zeros(len(taken), bool)
  mask[pairs.place[which]] = True
  return mask


def _finish(taken, pairs, most, least) -> Bool[np.ndarray, " n"]:
  """Decides the rows that are left, one after the other."""
  added: dict[int, int] = {}
  by_place = np.argsort(pairs.place, kind="stable")
  place = pairs.place[by_place]
  value, before = pairs.value[by_place], pairs.before[by_place]
  begins = np.flatnonzero(np.diff(place, prepend=-1)).tolist()
  for begin, end in itertools.pairwise([*begins, len(place)]):
    values = value[begin:end].tolist()
    counts = [
      number + added.get(each, 0)
      for each, number in zip(values, before[begin:end].tolist(), strict=True)
    ]
    fits = all(n < most[each] for each, n in zip(values, counts, strict=True))
    if least is not None:
      fits &= any(n < least[each] for each, n in zip(values, counts, strict=True))
    if fits:
      taken[place[begin]] = True
      for each in values:
        added[each] = added.get(each, 0) + 1
  return taken
