"""Few shapes of steps: against all choices, and what every step is given."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.data.packing import assembly, batch_shapes, loader, row_packing
from mllm_selector_jax.models import mllm
from mllm_selector_jax.training import train_step
from tests.training import toy


def waste(rows, chosen):
  return sum(min(one for one in chosen if one >= each) for each in rows)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 4))
def test_the_numbers_are_the_best_of_all(rows, most):
  found = batch_shapes.choose_heights(np.array(rows), most)
  assert found == sorted(set(found)) and len(found) <= most and found[-1] == max(rows)
  choices = (
    chosen
    for count in range(1, most + 1)
    for chosen in itertools.combinations(set(rows), count)
    if max(rows) in chosen
  )
  assert waste(rows, found) == min(waste(rows, chosen) for chosen in choices)


def lay_out(count, most=None, shards=1):
  samples = toy.random_samples(24)
  lengths = np.array([len(one.tokens) for one, _ in samples.values()])
  steps = row_packing.training_steps(24, lengths, 5, -(-count // 5), 0, 32)[:count]
  items = assembly.Counts(
    tiles=np.array([len(tiles) for _, tiles in samples.values()]),
    taps=np.zeros(24, int),
    supervised=np.full(24, 2),
    answers=np.ones(24, int),
  )
  return steps, batch_shapes.lay_out(steps, items, 32, toy.CONFIG.tiling, shards, most)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_every_step_fits_the_smallest_shape_that_holds_it(most, shards):
  steps, laid = lay_out(30, most, shards)
  assert 1 <= len(laid.shapes) <= most and laid.largest.rows == max(
    shape.rows for shape in laid.shapes
  )
  for rows, which in zip(steps, laid.which, strict=True):
    fits = [len(rows) <= shape.rows for shape in laid.shapes]
    assert fits.index(True) == which
    assert laid.shapes[which].rows % shards == 0
  assert set(laid.which) == set(range(len(laid.shapes)))


def test_longer_runs_pay_for_more_shapes():
  assert [len(lay_out(count)[1].shapes) for count in (1, 99, 100)] == [1, 1, 2]


def test_a_loss_does_not_hang_on_the_shape():
  steps, laid = lay_out(30, 3)
  params, samples = mllm.init(toy.CONFIG, 0), toy.random_samples(24)
  assert len(laid.shapes) > 1

  def loss(rows, shape):
    trees = loader.as_trees(rows)
    batch, _ = assembly.assemble(trees, samples, shape, toy.CONFIG.image_token)
    return float(train_step.batch_loss(toy.CONFIG, params, batch))

  smallest = int(np.flatnonzero(laid.which == 0)[0])
  found = [loss(steps[smallest], shape) for shape in laid.shapes]
  np.testing.assert_allclose(found, found[0], rtol=1e-6)
