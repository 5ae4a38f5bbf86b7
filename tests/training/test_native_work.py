"""What towers of native resolution cost: pairs of patches, by hand and as compiled."""

import dataclasses
import itertools
import types

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from mllm_selector_jax.models import mllm
from mllm_selector_jax.pipeline import flops
from mllm_selector_jax.training import train_step, work
from tests.models import native_inputs, packed
from tests.models.test_native_tower import draw, make_batch

CONFIG = packed.NATIVE
SIDES = st.integers(1, 6)


@hypothesis.settings(max_examples=20, deadline=None, derandomize=True, database=None)
@hypothesis.given(
  st.lists(st.lists(st.tuples(SIDES, SIDES), max_size=3), min_size=1, max_size=3),
  st.integers(1, 4),
)
def test_pairs_are_those_that_see_one_another(shards, window):
  config = dataclasses.replace(
    CONFIG, vision=dataclasses.replace(CONFIG.vision, window=window)
  )
  rng = np.random.default_rng(0)
  drawn = [
    [(grid, native_inputs.draw_tiles(config, rng, grid)) for grid in shard]
    for shard in shards
  ]
  most = 2 + max(sum(len(tiles) for _, tiles in shard) for shard in drawn)
  _, places = native_inputs.pack_images(config, drawn, most)
  images = windows = 0
  for shard in shards:
    for rows, columns in shard:
      tiles = [divmod(number, columns) for number in range(rows * columns)]
      for one, other in itertools.product(tiles, tiles):
        images += 16
        near = all(a // window == b // window for a, b in zip(one, other, strict=True))
        windows += 16 * near
  assert work.count_pairs(config, places) == (images, windows)


@pytest.mark.parametrize("grid", [(4, 6), (2, 2), (1, 1)])
def test_images_of_whole_windows_are_estimated_exactly(grid):
  rows, columns = grid
  _, places = draw(CONFIG, [grid, grid, grid], 3 * rows * columns + 1)
  vision, tiles = CONFIG.vision, np.array([3 * rows * columns, 0])
  found = work.estimate_pairs(vision.positions, vision.window, tiles, [3, 0])
  exact = work.count_pairs(CONFIG, places)
  if rows > 1:
    np.testing.assert_array_equal(found, np.stack([exact, (0, 0)], axis=1))
  else:
    np.testing.assert_array_equal(np.asarray(found)[:, 0], (48, 48))


def test_rows_of_a_pool_cost_what_their_tiles_see():
  tiles, images = np.array([0, 24, 24]), np.array([0, 1, 4])
  pool = types.SimpleNamespace(
    tokens=np.array([9, 40, 40]),
    supervised=np.array([2, 2, 2]),
    tiles=tiles,
    images=types.SimpleNamespace(counts=images),
  )
  rates = flops.make_row_rates(CONFIG, None)
  text, one, several = flops.row_flops(CONFIG, rates, pool)
  pairs = (4 * 24) ** 2 * (1 - 1 / 4)
  np.testing.assert_allclose(one - several, rates.pair * pairs, rtol=1e-9)
  assert rates.near_pair == 2 * rates.pair > 0  # two layers see windows, one all
  assert 0 < text < several


@pytest.mark.parametrize(
  "changes",
  [
    {"projector_width": 256},
    # As Mistral 3 has it.
    {"narrows": True, "deepstack": (), "projector_width": None},
  ],
)
def test_a_forward_pass_costs_what_the_compiler_counts(changes):
  wide = dataclasses.replace(
    CONFIG,
    vision=dataclasses.replace(CONFIG.vision, width=64, mlp=128, window=0),
    decoder=dataclasses.replace(CONFIG.decoder, width=128, mlp=256, head_dim=4),
    **changes,
  )
  params = mllm.init(wide, 0)
  # One image fills all tiles, so that nothing is masked or padded.
  batch, _ = make_batch(wide, [[(1, (5, 6), 7)]], 40)
  ours = work.make_count(wide, params, ())(batch)

  def forward(params, batch):
    return train_step.batch_loss(wide, params, batch)

  counted = jax.jit(forward).lower(params, batch).compile().cost_analysis()["flops"]
  rates = work.make_rates(wide, params, None)
  tokens, keys = 40, 40 * 41 / 2
  pairs = work.count_pairs(wide, batch.places)
  total = rates.flops(tokens, keys, 39, 30, pairs)
  assert pairs == (120**2, 120**2) and ours.tokens == 40
  np.testing.assert_allclose(total, counted, rtol=0.1)
  assert rates.pair * pairs[0] > 0.01 * total
