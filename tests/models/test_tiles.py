"""Images of several tiles, newlines and interpolated features on the device."""

import functools

import jax
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import axes, mllm, projector
from mllm_selector_jax.training import train_step, work
from mllm_selector_jax.types import InputError
from tests.models import packed, tiles

# Everything that only some families have, at once.
CONFIG = packed.make_config(
  merge=2,
  projector_norm="layer_norm",
  newline=True,
  decoder_qk_norm=True,
  vision_image_size=32,
  vision_qkv_bias=False,
  vision_qk_norm=True,
  vision_norm="rms_norm",
  vision_layer_scale=True,
  vision_mask_token=True,
  vision_patch_bias=True,
)
MANY = CONFIG.patches


def make_sample(rng, count, text=5):
  """An image of `count` tiles: some of their features, a newline, two that are sums."""
  own = rng.permutation(count * MANY)[:3]
  taps = rng.integers(0, count * MANY, (2, 4))
  weights = rng.dirichlet(np.ones(4), 2)
  features = np.r_[own, tiles.NEWLINE, -2, -3]
  return tiles.make_sample(CONFIG, rng, text, count, features, taps, weights)


def make_rows(seed=0):
  rng = np.random.default_rng(seed)
  return [
    [make_sample(rng, 2), make_sample(rng, 1)],
    [make_sample(rng, 1)],
    [make_sample(rng, 3)],
    [make_sample(rng, 1), make_sample(rng, 1)],
  ]


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, batch):
  return mllm.hidden_states(config, params, batch)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_blocks_are_merged_row_by_row(side):
  features = np.random.default_rng(0).normal(size=(2, 36, 5)).astype(np.float32)
  merged = projector.merge_patches(jax.numpy.asarray(features), side)
  blocks = 6 // side
  assert merged.shape == (2, blocks**2, side**2 * 5)
  for block in range(blocks**2):
    row, column = side * (block // blocks), side * (block % blocks)
    wanted = [
      features[:, (row + i) * 6 + column + j] for i in range(side) for j in range(side)
    ]
    np.testing.assert_array_equal(merged[:, block], np.concatenate(wanted, axis=-1))


def test_features_stand_where_the_index_says():
  params, rows = packed.random_params(CONFIG), make_rows()
  batch = tiles.pack(CONFIG, rows, 32)
  table = mllm.embed(
    CONFIG,
    params,
    np.zeros((4, 3 * MANY), int),
    np.tile(np.arange(3 * MANY), (4, 1)),
    batch.images,
  ).x
  x = np.asarray(mllm.embed(CONFIG, params, *_embedded(batch)).x)
  newline = params["projector"]["newline"]
  for row, patches in enumerate(batch.patches):
    for place in np.flatnonzero(patches >= 0):
      index = patches[place]
      if index < 3 * MANY:
        wanted = table[row, index]
      elif index == 3 * MANY:
        wanted = newline
      else:
        tap = index - 3 * MANY - 1
        wanted = batch.tap_weights[row, tap] @ table[row, batch.taps[row, tap]]
      np.testing.assert_allclose(x[row, place], wanted, atol=1e-5)


def _embedded(batch):
  return batch.tokens, batch.patches, batch.images, batch.taps, batch.tap_weights


def test_packed_and_separate_agree():
  params, rows = packed.random_params(CONFIG), make_rows()
  hidden = np.asarray(run(CONFIG, params, tiles.pack(CONFIG, rows, 32)))
  for row, samples in enumerate(rows):
    start = 0
    for sample in samples:
      end = start + len(sample.tokens)
      alone = run(CONFIG, params, tiles.pack(CONFIG, [[sample]], 32))
      np.testing.assert_allclose(
        hidden[row, start:end], alone[0, : end - start], atol=2e-5
      )
      start = end


def test_the_mesh_does_not_change_a_state():
  params = packed.random_params(CONFIG)
  batch = tiles.pack(CONFIG, make_rows(), 32)
  alone = run(CONFIG, params, batch)
  mesh = sharding.make_mesh(2, 2, 2)
  layout = sharding.parameter_shardings(params, axes.logical_axes(params), mesh)
  with sharding.use(mesh):
    spread = jax.jit(mllm.hidden_states, static_argnums=0)(
      CONFIG, jax.device_put(params, layout), sharding.put_rows(batch, mesh)
    )
  np.testing.assert_allclose(spread, alone, atol=1e-5)


def test_micro_batches_keep_their_tiles():
  params = packed.random_params(CONFIG)
  batch = tiles.pack(CONFIG, make_rows(), 32)
  whole = run(CONFIG, params, batch)
  parts = train_step.split_batch(jax.tree.map(jax.numpy.asarray, batch), 2, 1)
  assert parts.prefixes is None
  for part in range(2):
    states = run(CONFIG, params, jax.tree.map(lambda x, n=part: x[n], parts))
    np.testing.assert_allclose(states, whole[2 * part : 2 * part + 2], atol=1e-5)


def test_the_work_is_that_of_the_tiles():
  params = mllm.abstract(CONFIG)
  rows = make_rows()
  batch = tiles.pack(CONFIG, rows, 32)
  counted = work._count_tiles(batch, CONFIG.patches)
  # With this seed the last tile of every shard is read.
  assert counted == sum(len(sample.tiles) for row in rows for sample in row)
  rates = work.make_rates(CONFIG, params, None)
  one = work.make_rates(packed.make_config(vision_image_size=32), params, None)
  width, inner = CONFIG.vision.width, CONFIG.decoder.width
  merged = 2 * MANY * (4 * width * inner + inner * inner)
  assert rates.tile - one.tile == merged - 2 * 16 * (4 * width + inner) * inner
  tokens = work.make_count(CONFIG, params, ())(batch)
  text = tiles.pack(CONFIG, [[s] for s in [rows[0][0]]], 32)
  assert tokens.flops > work.make_count(CONFIG, params, ())(text).flops


def test_the_work_of_one_tile_an_image_is_as_before():
  rng = np.random.default_rng(0)
  rows = [
    [packed.random_sample(packed.CONFIG, rng, 4, image) for image in (True, False)],
    [packed.random_sample(packed.CONFIG, rng, 4, True) for _ in range(2)],
    [packed.random_sample(packed.CONFIG, rng, 4, False)],
  ]
  batch = packed.pack(packed.CONFIG, rows, 32)
  assert work._count_tiles(batch, packed.CONFIG.patches) == 3
  none = batch._replace(images=batch.images[:, :0])
  assert work._count_tiles(none, packed.CONFIG.patches) == 0


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"merge": 3}, "do not divide into blocks of 3"),
    ({"merge": 2, "select": "full"}, "must stay a square"),
    ({"newline": True, "select": "full"}, "must stay a square"),
    ({"vision_norm": "batch_norm"}, "'batch_norm' is not one of"),
  ],
)
def test_what_does_not_fit_is_refused(changes, message):
  with pytest.raises(InputError, match=message):
    packed.make_config(vision_image_size=32, **changes)
