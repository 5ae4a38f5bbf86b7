"""Decoders whose layers have heads of two widths, and what is constant in them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax.models import image_numbers, layer_views, mllm
from mllm_selector_jax.models.decoder_config import FULL, WINDOW
from mllm_selector_jax.training import train_step, work
from mllm_selector_jax.types import InputError
from tests.models import native_inputs, packed

CONFIG, DECODER = packed.GEMMA4, packed.GEMMA4.decoder
GRIDS = ((2, 3), (1, 4))


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(0)
  rows = [[native_inputs.draw_sample(CONFIG, rng, [3, *GRIDS, 4])]]
  rows += [[native_inputs.draw_sample(CONFIG, rng, [5, GRIDS[1]])]]
  return native_inputs.pack_rows(CONFIG, rows, 32)


def test_layers_of_a_kind_have_its_sizes_and_its_view():
  assert DECODER.order == (WINDOW, WINDOW, FULL)
  full = DECODER.of_kind(FULL)
  assert (full.kv_heads, full.head_dim, full.keys_as_values) == (1, 8, True)
  assert DECODER.of_kind(WINDOW) is DECODER
  sizes = []
  views = layer_views.make_views(
    DECODER,
    lambda rope, head_dim: (sizes.append((rope, head_dim)), None),
    lambda window: window,
  )
  assert sizes == [(DECODER.rope, 8), (DECODER.window_rope, 4)]
  # A traced number says nothing that the kind does not.
  picked = [views.pick(jnp.int32(9), kind).seen for kind in (FULL, WINDOW)]
  assert picked == [None, 5]


@pytest.mark.parametrize("full_layers", [(), (0, 1, 2)])
def test_both_kinds_are_needed(full_layers):
  with pytest.raises(InputError, match="need layers with a window and layers without"):
    dataclasses.replace(DECODER, full_layers=full_layers)


def test_images_begin_with_their_first_tile(batch):
  found = np.asarray(image_numbers.number_images(CONFIG, batch.patches, batch.places))
  wanted = [np.repeat(n + 1, rows * columns) for n, (rows, columns) in enumerate(GRIDS)]
  np.testing.assert_array_equal(found[0][found[0] > 0], np.concatenate(wanted))
  np.testing.assert_array_equal(found[1][found[1] > 0], np.ones(4))
  np.testing.assert_array_equal(found > 0, batch.patches >= 0)


def test_constants_have_no_gradient_and_all_else_has(batch):
  params = packed.random_params(CONFIG)
  grads = jax.jit(jax.grad(lambda params: train_step.batch_loss(CONFIG, params, batch)))
  still = [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads(params))
    if not leaf.any()
  ]
  assert set(still) == {
    "decoder/layers/full/layer_scale",
    "decoder/layers/window/layer_scale",
    "vision/standard_bias",
    "vision/standard_scale",
  }


def test_the_cost_of_heads_and_of_later_tokens_is_counted_by_kind():
  rates = work.make_rates(CONFIG, mllm.abstract(CONFIG), None)
  near, far = 2 * 4 * 4, 4 * 8  # channels of all heads, in all layers of a kind
  assert rates.key == 4 * (near + far)
  causal = dataclasses.replace(CONFIG, both_ways=False)
  plain = work.make_rates(causal, mllm.abstract(causal), None)
  tokens = 6  # of one image, of nine patches each
  pairs = (9 * tokens) ** 2
  later = (rates.tile - plain.tile) * tokens + (rates.pair - plain.pair) * pairs
  assert later == pytest.approx(4 * near * tokens * (tokens - 1) / 2)
