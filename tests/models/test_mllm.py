import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import axes, mllm
from tests.models import packed


def make_case(config=packed.CONFIG, seed=0, length=40):
  rng = np.random.default_rng(seed)
  rows = [
    [
      packed.random_sample(config, rng, size, image)
      for size, image in ((6, True), (5, False), (7, True))
    ],
    [packed.random_sample(config, rng, 9, False)],
  ]
  return packed.random_params(config, seed), rows, packed.pack(config, rows, length)


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, batch):
  return mllm.hidden_states(config, params, batch)


def test_packed_and_separate_agree():
  params, rows, batch = make_case()
  hidden = np.asarray(run(packed.CONFIG, params, batch))
  for row, samples in enumerate(rows):
    start = 0
    for sample in samples:
      end = start + len(sample[0])
      # In the other row and first there, beside an empty row of the same shape.
      alone = packed.pack(packed.CONFIG, [[], [sample]], 40)
      alone = alone._replace(images=np.repeat(alone.images, 3, axis=1))
      states = run(packed.CONFIG, params, alone)[1, : end - start]
      np.testing.assert_allclose(hidden[row, start:end], states, atol=1e-5)
      start = end


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_sample_does_not_change_a_bit_of_its_neighbours(changed):
  params, rows, batch = make_case()
  before = np.asarray(run(packed.CONFIG, params, batch))
  tokens, pixels = rows[0][changed]
  text = tokens != packed.CONFIG.image_token
  tokens[text] = np.where(tokens[text] < 20, tokens[text] + 10, tokens[text] - 5)
  if pixels is not None:
    rows[0][changed] = tokens, 255 - pixels
  after = np.asarray(
    run(packed.CONFIG, params, packed.pack(packed.CONFIG, rows, batch.tokens.shape[1]))
  )
  other = batch.segments != changed + 1
  other[1] = True
  np.testing.assert_array_equal(before[other], after[other])
  assert (before[~other] != after[~other]).any(-1).all()


def test_image_tokens_hold_the_features_and_text_the_embeddings():
  config = packed.CONFIG
  params, _, batch = make_case()
  x = mllm.embed(config, params, batch.tokens, batch.patches, batch.images).x
  text = batch.patches < 0
  table = np.asarray(params["decoder"]["token_embedding"])
  np.testing.assert_array_equal(x[text], table[batch.tokens[text]])
  places = np.arange(2 * config.patches)[None]
  alone = mllm.embed(config, params, 0 * places, places, batch.images[:1]).x
  np.testing.assert_allclose(x[0][~text[0]], alone[0], atol=1e-6)


def test_rows_without_any_image_need_no_pixels():
  config = packed.CONFIG
  params, _, batch = make_case()
  rows = batch._replace(
    tokens=batch.tokens[1:],
    positions=batch.positions[1:],
    segments=batch.segments[1:],
    patches=batch.patches[1:],
    images=batch.images[1:],
  )
  none = rows._replace(images=rows.images[:, :0])
  np.testing.assert_array_equal(run(config, params, none), run(config, params, rows))


def test_a_tied_head_is_the_transposed_embedding():
  config = packed.make_config(decoder_tied=True)
  params = mllm.init(config, 0)
  assert "head" not in params["decoder"]
  np.testing.assert_array_equal(
    mllm.head(config, params), params["decoder"]["token_embedding"].T
  )
  assert mllm.head(packed.CONFIG, mllm.init(packed.CONFIG, 0)).shape == (16, 40)


def test_half_precision_is_near():
  params, _, batch = make_case()
  config = packed.make_config(dtype="bfloat16")
  exact, half = (run(c, params, batch) for c in (packed.CONFIG, config))
  assert half.dtype == jnp.bfloat16
  error = np.abs(exact - half.astype(jnp.float32))[batch.segments > 0]
  assert 0 < error.mean() < 0.02


def loss(params, config, batch):
  return jnp.square(mllm.hidden_states(config, params, batch)).sum()


value_and_grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_recomputed_blocks_give_the_same_loss_and_gradient(remat):
  params, _, batch = make_case()
  kept = value_and_grad(params, packed.CONFIG, batch)
  recomputing = dataclasses.replace(packed.CONFIG, remat=remat)
  recomputed = value_and_grad(params, recomputing, batch)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    kept,
    recomputed,
  )


def test_the_gradient_is_that_of_finite_differences():
  params, _, batch = make_case()
  _, grad = value_and_grad(params, packed.CONFIG, batch)
  rng = np.random.default_rng(1)
  way = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
  step = 1e-3
  there, back = (
    value_and_grad(
      jax.tree.map(lambda x, d, s=sign: x + s * step * d, params, way),
      packed.CONFIG,
      batch,
    )[0]
    for sign in (1, -1)
  )
  inner = sum(
    float(jnp.vdot(a, b))
    for a, b in zip(jax.tree.leaves(grad), jax.tree.leaves(way), strict=True)
  )
  np.testing.assert_allclose(inner, (there - back) / (2 * step), rtol=0.02)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)])
def test_the_mesh_does_not_change_a_state(shape):
  config = packed.CONFIG
  params, rows, _ = make_case()
  batch = packed.pack(config, rows * 4, 40)
  alone = run(config, params, batch)
  mesh = sharding.make_mesh(*shape)
  layout = sharding.parameter_shardings(params, axes.logical_axes(params), mesh)
  with sharding.use(mesh):
    spread = jax.jit(mllm.hidden_states, static_argnums=0)(
      config, jax.device_put(params, layout), sharding.put_rows(batch, mesh)
    )
  np.testing.assert_allclose(spread, alone, atol=1e-5)
