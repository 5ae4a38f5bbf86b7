"""FLOPs of models of native resolution, counted by hand for one small case."""

from types import SimpleNamespace

import numpy as np
import pytest

from mllm_selector_jax.data.packing import tree_packing
from mllm_selector_jax.models import mllm
from mllm_selector_jax.pipeline.flops import row_flops
from mllm_selector_jax.planning import estimate
from mllm_selector_jax.training import work
from tests.models import native_inputs, packed

CONFIG = packed.NATIVE
# Rows and columns of tiles. A window has two on a side, so that one image has whole
# windows alone, and the other two whole ones and one that is cut off.
WHOLE, CUT = (4, 6), (2, 5)


def count_pairs(grid, window):
  """Pairs of patches within the windows of an image, window by window."""
  rows, columns = grid
  total = 0
  for top in range(0, rows, window):
    for left in range(0, columns, window):
      tiles = min(window, rows - top) * min(window, columns - left)
      total += (4 * tiles) ** 2
  return total


def count_by_hand(grids, tokens, targets, times):
  """FLOPs of one sample.

  Args:
    grids: of its images.
    tokens: of all.
    targets: supervised ones.
    times: how often the products of the tower, of the projector and of the decoder are
      computed, and, of attention in the decoder, how often its two products.
  """
  tower, projector, decoder, attended = times
  tiles = sum(rows * columns for rows, columns in grids)
  # Attention's four matrices and a gated MLP, a layer; both frames' kernels are summed.
  patch = 3 * (4 * 16 * 16 + 3 * 16 * 24) + 3 * 8 * 8 * 16
  # One of three layers sees whole images, the others windows of 2 x 2 tiles.
  pairs = sum(count_pairs(grid, 99) + 2 * count_pairs(grid, 2) for grid in grids)
  # The merger and two more, for deepstack.
  feature = 3 * (64 * 64 + 64 * 16)
  seeing = tower * (2 * patch * 4 * tiles + 4 * 16 * pairs)
  seeing += projector * 2 * feature * tiles
  # Queries, keys and values of 4 and 2 heads in all three layers; what follows them is
  # computed in the last one where it is read alone.
  heads, after = 16 * 16 + 2 * 16 * 8, 16 * 16 + 3 * 16 * 24
  writing = decoder * 2 * ((3 * heads + 2 * after) * tokens + after * targets)
  writing += decoder * 2 * 16 * 40 * targets
  keys = tokens * (tokens + 1) // 2
  return seeing + writing + attended * 4 * 3 * 4 * 4 * keys


# Of the tower, of the projector, of the decoder, of its attention.
TIMES = {
  None: (1, 1, 1, 1),
  ("projector", "decoder"): (1, 2, 3, 3),
  ("decoder",): (1, 1, 3, 3),
  ("vision", "projector", "decoder"): (3, 3, 3, 3),
}


@pytest.mark.parametrize("trained", TIMES)
@pytest.mark.parametrize("grids", [[WHOLE], [CUT], [CUT, WHOLE]])
def test_a_sample_costs_what_a_hand_counts(trained, grids):
  rng = np.random.default_rng(0)
  sample = native_inputs.draw_sample(CONFIG, rng, (5, *grids, 7))
  tokens = len(sample[0].tokens)
  by_hand = count_by_hand(grids, tokens, tokens - 1, TIMES[trained])
  params = mllm.abstract(CONFIG)
  rates = work.make_rates(CONFIG, params, trained)
  batch = native_inputs.pack_rows(CONFIG, [[sample]], 64)
  if trained is not None:
    assert work.make_count(CONFIG, params, trained)(batch).flops == by_hand
  pairs = work.count_pairs(CONFIG, batch.places)
  tiles = sum(rows * columns for rows, columns in grids)
  keys = tokens * (tokens + 1) / 2
  assert rates.flops(tokens, keys, tokens - 1, tiles, pairs) == by_hand
  # What the checked pool says of the row: no sizes of its images.
  pool = SimpleNamespace(
    tokens=np.array([tokens]),
    tiles=np.array([tiles]),
    supervised=np.array([tokens - 1]),
    images=SimpleNamespace(counts=np.array([len(grids)])),
  )
  planned = row_flops(CONFIG, rates, pool)[0]
  if grids == [WHOLE]:
    assert planned == by_hand
  np.testing.assert_allclose(planned, by_hand, rtol=0.05)


def test_a_plan_of_scoring_counts_what_a_hand_counts():
  tokens = np.array([5 + 26 + 7, 9])
  pool = SimpleNamespace(
    tokens=tokens,
    tiles=np.array([24, 0]),
    supervised=np.array([6, 4]),
    images=SimpleNamespace(counts=np.array([1, 0])),
  )
  plan = tree_packing.make_plan(tokens, 64)
  planned = estimate.score_flops(CONFIG, pool, np.arange(2), plan)
  once = 1, 1, 1, 1
  by_hand = count_by_hand([WHOLE], 38, 6, once) + count_by_hand([], 9, 4, once)
  assert planned == by_hand
