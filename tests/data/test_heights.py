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
  return steps, batch_shapes.lay_out(
    steps, items, lengths, 32, toy.CONFIG.tiling, shards, most
  )


def price(needed, chosen, costs):
  """What the steps cost, each by the cheapest pair that holds it; None: by none."""
  total = 0.0
  for step in needed:
    fits = [pair for pair in chosen if (step <= np.array(pair)).all()]
    if not fits:
      return None
    total += min(float(np.dot(pair, costs)) for pair in fits)
  return total


@given(
  st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=12),
  st.integers(1, 3),
  st.sampled_from([(1.0, 1.0), (8.0, 0.5), (0.5, 3.0)]),
)
def test_the_pairs_are_the_best_of_all(needed, most, costs):
  needed = np.array(needed)
  found = batch_shapes.choose_sizes(needed, costs, most)
  assert len(found) <= most
  assert set(batch_shapes.assign(needed, found)) == set(range(len(found)))
  pairs = list(itertools.product(*(np.unique(column) for column in needed.T)))
  largest = pairs.pop()  # of both sizes, which is always one of the choice
  prices = (
    price(needed, [largest, *others], costs)
    for others in itertools.combinations(pairs, min(most - 1, len(pairs)))
  )
  assert price(needed, found, costs) == pytest.approx(min(prices))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 3))
def test_pairs_of_equal_tiles_are_the_best_heights(rows, most):
  needed = np.stack([np.array(rows), np.full(len(rows), 3)], 1)
  found = batch_shapes.choose_sizes(needed, (1.0, 0.5), most)
  heights = batch_shapes.choose_heights(np.array(rows), most)
  assert waste(rows, found[:, 0].tolist()) == waste(rows, heights)


def test_pairs_among_many_sizes_hold_every_step():
  rng = np.random.default_rng(0)
  needed = rng.integers(1, 500, (300, 2))
  found = batch_shapes.choose_sizes(needed, (1.0, 1.0), 3)
  assert len(found) == 3 and (found[-1] == needed.max(0)).all()
  given_pairs = found[batch_shapes.assign(needed, found)]
  assert (needed <= given_pairs).all()


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_every_step_fits_its_shape_and_no_row_is_lost(most, shards):
  steps, laid = lay_out(30, most, shards)
  assert 1 <= len(laid.shapes) <= most
  assert set(laid.which) == set(range(len(laid.shapes)))
  samples = toy.random_samples(24)
  for before, after, which in zip(steps, laid.steps, laid.which, strict=True):
    assert sorted(itertools.chain(*before)) == sorted(itertools.chain(*after))
    for shape in (laid.shapes[which], laid.largest):
      assert len(before) <= shape.rows and shape.rows % shards == 0
    shape = laid.shapes[which]
    assert len(after) == shape.rows
    # More tiles or targets in a shard than its shape has raise an error.
    trees = loader.as_trees(after)
    _, owners = assembly.assemble(trees, samples, shape, toy.CONFIG.image_token)
    learned = sorted(set(owners.item[owners.item >= 0].tolist()))
    assert learned == sorted(item for row in before for item in row)
  for field in ("rows", "tiles", "supervised", "answers", "taps"):
    largest = max(getattr(shape, field) for shape in laid.shapes)
    assert getattr(laid.largest, field) == largest


def test_the_samples_of_a_step_do_not_depend_on_the_shards():
  held = [
    [sorted(item for row in step for item in row) for step in laid.steps]
    for _, laid in (lay_out(30, 3, shards) for shards in (1, 2, 5))
  ]
  assert held[0] == held[1] == held[2]


def test_longer_runs_pay_for_more_shapes():
  # Of 99 steps a second shape saves the work of more than ten, of ten steps not.
  assert [len(lay_out(count)[1].shapes) for count in (1, 10, 99, 100)] == [1, 1, 2, 2]


@pytest.mark.parametrize("shards", [2, 3])
def test_a_loss_does_not_hang_on_the_shards(shards):
  (_, one), (_, several) = lay_out(10, 1), lay_out(10, 3, shards)
  params, samples = mllm.init(toy.CONFIG, 0), toy.random_samples(24)

  def loss(laid, number):
    trees, shape = loader.as_trees(laid.steps[number]), laid.shapes[laid.which[number]]
    batch, _ = assembly.assemble(trees, samples, shape, toy.CONFIG.image_token)
    return float(train_step.batch_loss(toy.CONFIG, params, batch))

  for number in range(3):
    np.testing.assert_allclose(loss(several, number), loss(one, number), rtol=1e-6)


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
