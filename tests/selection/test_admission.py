"""Rows that fit, decided together, beside the loop that defines them."""

from types import SimpleNamespace

import numpy as np
import pytest

from mllm_selector_jax.selection import admission


def walk(order, limits, count, least=None):
  """The definition: one row after the other."""
  count = count.copy()
  taken = []
  for row in order:
    values = limits.index[limits.bounds[row] : limits.bounds[row + 1]]
    fits = (count[values] < limits.most[values]).all()
    if least is not None:
      fits &= (count[values] < least[values]).any()
    taken.append(bool(fits))
    count[values] += bool(fits)
  return taken


def admit(order, limits, count, least=None):
  return admission.admit(order, limits.bounds, limits.index, limits.most, count, least)


def make_limits(rng, rows, values, most_values):
  lists = [
    rng.permutation(values)[: rng.integers(0, most_values + 1)] for _ in range(rows)
  ]
  bounds = np.cumsum([0, *(len(each) for each in lists)])
  index = np.concatenate([*lists, np.zeros(0, np.int64)])
  most = rng.integers(0, 2 * rows * most_values // (values + 1) + 2, values)
  return SimpleNamespace(bounds=bounds, index=index.astype(np.int64), most=most)


@pytest.mark.parametrize("rounds, rows_left", [(0, 0), (2, 0), (30, 0), (30, 1000)])
def test_the_same_rows_as_one_after_the_other(monkeypatch, rounds, rows_left):
  monkeypatch.setattr(admission, "MOST_ROUNDS", rounds)
  monkeypatch.setattr(admission, "LEAST_ROWS", rows_left)
  for seed in range(60):
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(0, 60))
    limits = make_limits(rng, rows, int(rng.integers(3, 9)), int(rng.integers(1, 4)))
    order = rng.permutation(rows)[: rng.integers(0, rows + 1)]
    count = rng.integers(0, 3, len(limits.most))
    least = rng.integers(0, 6, len(limits.most))
    for wanted in (None, least):
      ours = admit(order, limits, count, wanted)
      assert ours.tolist() == walk(order, limits, count, wanted)


def test_a_chain_of_rows_each_of_which_decides_the_next():
  """Rows 0, 1, 2, ... share a value with the next, and every other one is taken."""
  rows = 200
  index = np.stack([np.arange(rows), np.arange(1, rows + 1)], 1).reshape(-1)
  limits = SimpleNamespace(
    bounds=2 * np.arange(rows + 1), index=index, most=np.ones(rows + 1, np.int64)
  )
  taken = admit(np.arange(rows), limits, np.zeros(rows + 1, np.int64))
  assert taken.tolist() == [row % 2 == 0 for row in range(rows)]


def test_the_order_decides_which_rows_of_a_value_are_taken():
  limits = SimpleNamespace(
    bounds=np.arange(6), index=np.zeros(5, np.int64), most=np.array([2])
  )
  taken = admit(np.array([4, 0, 3, 1, 2]), limits, np.zeros(1, np.int64))
  assert taken.tolist() == [True, True, False, False, False]
