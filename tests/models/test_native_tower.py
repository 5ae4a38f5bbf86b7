"""Towers of native resolution: who sees whom, padding, gradients, positions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mllm_selector_jax import sharding
from mllm_selector_jax.data.packing import assembly
from mllm_selector_jax.models import axes, mllm, native_tower
from mllm_selector_jax.training import train_step
from tests.models import native_inputs, packed

CONFIG = packed.NATIVE
GRIDS = [(3, 5), (1, 1), (2, 4)]


@functools.partial(jax.jit, static_argnums=0)
def see(config, params, images, places):
  """The features of all tiles [W M D], and those of deepstack."""
  shards, tiles = images.shape[:2]
  index = np.arange(tiles)[None].repeat(shards, 0)
  found = mllm.embed(config, params, 0 * index, index, images, places=places)
  return found.x, found.added


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, batch):
  return mllm.hidden_states(config, params, batch)


def draw(config, grids, tiles, seed=0):
  rng = np.random.default_rng(seed)
  drawn = [(grid, native_inputs.draw_tiles(config, rng, grid)) for grid in grids]
  return native_inputs.pack_images(config, [drawn], tiles)


def cut(config, grids):
  """Of each image, the places of its tiles."""
  stops = np.cumsum([rows * columns for rows, columns in grids])
  return [
    slice(stop - rows * columns, stop)
    for stop, (rows, columns) in zip(stops, grids, strict=True)
  ]


def test_what_padding_holds_changes_no_bit():
  params = packed.random_params(CONFIG)
  images, places = draw(CONFIG, GRIDS, 30)
  before = see(CONFIG, params, images, places)
  images[0, 24:] = 255
  after = see(CONFIG, params, images, places)
  for one, other in zip(before, after, strict=True):
    assert np.isfinite(one).all() and np.isfinite(other).all()
    np.testing.assert_array_equal(one[..., :24, :], other[..., :24, :])


def test_a_shard_without_images_gives_finite_gradients():
  params = packed.random_params(CONFIG)
  images, places = np.zeros((1, 3, 16, 16, 3), np.uint8), np.zeros((1, 3, 5), np.int32)

  def total(params):
    x, added = see(CONFIG, params, images, places)
    return (x**2).sum() + (added**2).sum()

  for gradient in jax.tree.leaves(jax.grad(total)(params)):
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("changed", range(3))
def test_images_do_not_see_one_another(changed):
  params = packed.random_params(CONFIG)
  images, places = draw(CONFIG, GRIDS, 26)
  before = see(CONFIG, params, images, places)
  spans = cut(CONFIG, GRIDS)
  images[0, spans[changed]] = 255 - images[0, spans[changed]]
  after = see(CONFIG, params, images, places)
  for one, other in zip(before, after, strict=True):
    for number, span in enumerate(spans):
      same = (one[..., span, :] == other[..., span, :]).all()
      assert bool(same) == (number != changed)


def test_an_image_is_the_same_alone_and_beside_others():
  params = packed.random_params(CONFIG)
  images, places = draw(CONFIG, GRIDS, 26)
  beside = see(CONFIG, params, images, places)
  for span in cut(CONFIG, GRIDS):
    own = places[:, span] * [0, 1, 1, 1, 1] + [1, 0, 0, 0, 0]
    alone = see(CONFIG, params, images[:, span], own.astype(np.int32))
    for one, other in zip(beside, alone, strict=True):
      np.testing.assert_allclose(one[..., span, :], other, atol=2e-5)


@pytest.mark.parametrize("layers", [(), (1,)])
def test_windows_are_crossed_by_global_layers_alone(layers):
  config = dataclasses.replace(
    CONFIG, vision=dataclasses.replace(CONFIG.vision, global_layers=layers)
  )
  params = packed.random_params(config)
  images, places = draw(config, [(3, 5)], 15)
  before = see(config, params, images, places)[0][0]
  images[0, 0] = 255 - images[0, 0]
  after = see(config, params, images, places)[0][0]
  changed = np.asarray((before != after).any(-1))
  window = (places[0, :, 1:3] // 2 == places[0, 0, 1:3] // 2).all(-1)
  assert 1 < window.sum() < 15
  np.testing.assert_array_equal(changed, window | bool(layers))


def test_both_frames_of_the_kernel_learn_as_a_convolution_s():
  vision = CONFIG.vision
  rng = np.random.default_rng(0)
  patches = rng.normal(size=(7, 8, 8, 3)).astype(np.float32)
  kernel = rng.normal(size=(2, 8, 8, 3, vision.width)).astype(np.float32)
  wanted = rng.normal(size=(7, vision.width)).astype(np.float32)
  conv = torch.nn.Conv3d(3, vision.width, (2, 8, 8), bias=False)
  conv.weight.data = torch.tensor(kernel.transpose(4, 3, 0, 1, 2).copy())
  frames = np.repeat(patches.transpose(0, 3, 1, 2)[:, :, None], 2, axis=2)
  out = conv(torch.tensor(frames)).flatten(1)
  (out * torch.tensor(wanted)).sum().backward()
  from flax import nnx

  plain = dataclasses.replace(vision, patch_bias=False)
  graph, _ = nnx.split(native_tower.PatchEmbedding(plain, jnp.float32, nnx.Rngs(0)))

  def embed(kernel):
    return nnx.merge(graph, {"kernel": kernel})(patches.reshape(7, -1))

  flat = jnp.asarray(kernel.reshape(-1, vision.width))
  np.testing.assert_allclose(embed(flat), out.detach(), rtol=1e-4, atol=1e-4)
  gradient = jax.grad(lambda kernel: (embed(kernel) * wanted).sum())(flat)
  gradient = np.asarray(gradient).reshape(kernel.shape)
  theirs = conv.weight.grad.numpy().transpose(2, 3, 4, 1, 0)
  np.testing.assert_allclose(gradient, theirs, rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(gradient[0], gradient[1])


@pytest.mark.parametrize(
  "side, grid", [(5, (3, 5)), (7, (1, 6)), (4, (4, 4)), (1, (2, 2))]
)
@pytest.mark.parametrize("bicubic", [False, True])
def test_positions_are_interpolated_as_images_are(side, grid, bicubic):
  table = np.random.default_rng(0).normal(size=(side**2, 3)).astype(np.float32)
  places = np.zeros((1, grid[0] * grid[1], 5), np.int32)
  places[0, :, 1:3] = native_inputs.order_tiles(grid, 2)
  places[0, :, 0], places[0, :, 3:] = 1, grid
  where = native_tower.PatchPlaces(places, 2, 2)
  found = native_tower.interpolate_positions(table, where, side, bicubic)[0]
  image = torch.tensor(table.T.reshape(1, 3, side, side))
  wanted = torch.nn.functional.interpolate(
    image,
    (2 * grid[0], 2 * grid[1]),
    mode="bicubic" if bicubic else "bilinear",
    align_corners=not bicubic,
  )[0].numpy()
  wanted = wanted[:, np.asarray(where.rows[0]), np.asarray(where.columns[0])].T
  np.testing.assert_allclose(found, wanted, atol=1e-5)


ROWS = [[(3, (3, 2), 4), (5,), (2, (1, 1), 1, (1, 5), 3)], [(6,), (4, (2, 3), 1)]]


def make_batch(config, rows=ROWS, length=40):
  rng = np.random.default_rng(0)
  drawn = [
    [native_inputs.draw_sample(config, rng, parts) for parts in row] for row in rows
  ]
  return native_inputs.pack_rows(config, drawn, length), drawn


def gradients(config, params, batch):
  def loss(params):
    return train_step.batch_loss(config, params, batch)

  return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_what_is_recomputed_gives_the_same_gradients(remat):
  config = dataclasses.replace(
    CONFIG,
    # As loops over layers, not unrolled ones.
    vision=dataclasses.replace(CONFIG.vision, layers=6),
    decoder=dataclasses.replace(CONFIG.decoder, layers=5),
  )
  params, (batch, _) = packed.random_params(config), make_batch(config)
  wanted = gradients(config, params, batch)
  found = gradients(dataclasses.replace(config, remat=remat), params, batch)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, wanted
  )
  for name in ("vision", "projector"):
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted[1][name]):
      # The keys' biases move all scores of a query alike.
      if "key" not in str(path[-2:]):
        assert np.abs(leaf).max() > 1e-5, path


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_fast_kernel_gives_the_same_features_and_gradients(remat):
  params = packed.random_params(CONFIG)
  images, places = draw(CONFIG, GRIDS, 30)
  rng = np.random.default_rng(3)
  weights = rng.normal(size=(24, CONFIG.decoder.width))

  def total(params, kernel):
    config = dataclasses.replace(CONFIG, attention=kernel, remat=remat)
    x, added = see(config, params, images, places)
    return sum((state[0, :24] * weights).sum() for state in (x, *added))

  found, wanted = (
    jax.value_and_grad(total)(params, kernel) for kernel in ("splash", "xla")
  )
  for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    np.testing.assert_allclose(one, other, atol=2e-5 * max(1, np.abs(other).max()))


def test_packed_and_separate_agree():
  params, (batch, drawn) = packed.random_params(CONFIG), make_batch(CONFIG)
  states = run(CONFIG, params, batch)
  for row, examples in enumerate(drawn):
    start = 0
    for example in examples:
      alone = native_inputs.pack_rows(CONFIG, [[example]], 40)
      count = len(example[0].tokens)
      wanted = run(CONFIG, params, alone)[0, :count]
      np.testing.assert_allclose(states[row, start : start + count], wanted, atol=3e-5)
      start += count


def test_rows_of_text_are_the_same_beside_rows_with_images():
  params = packed.random_params(CONFIG)
  batch, drawn = make_batch(CONFIG, [[(3, (3, 2), 4)], [(9,), (6,)]])
  alone = native_inputs.pack_rows(CONFIG, [drawn[1]], 40)
  none = alone._replace(images=alone.images[:, :0], places=alone.places[:, :0])
  beside = run(CONFIG, params, batch)[1, :15]
  for other in (alone, none):
    found = run(CONFIG, params, other)[0, :15]
    np.testing.assert_allclose(found, beside, atol=1e-5)


def test_branches_see_their_trunk_s_images_in_every_layer():
  params = packed.random_params(CONFIG)
  rng = np.random.default_rng(0)
  first, tiles = native_inputs.draw_sample(CONFIG, rng, (3, (3, 2), 6))
  tokens = first.tokens.copy()
  trunk = 3 + 8 + 2
  tokens[trunk:] = tokens[trunk:] % 20 + 9
  second = first._replace(tokens=tokens)
  examples = {0: (first, tiles), 1: (second, tiles)}
  shape = assembly.Shape(1, 40, 1, 6, 40, 2, CONFIG.tiling, trunks=True)
  shared, _ = assembly.assemble([[(trunk, [0, 1])]], examples, shape, 4)
  states = run(CONFIG, params, shared)[0]
  rest = len(tokens) - trunk
  for number, example in examples.items():
    alone = native_inputs.pack_rows(CONFIG, [[example]], 40)
    wanted = run(CONFIG, params, alone)[0]
    begin = trunk + number * rest
    np.testing.assert_allclose(states[:trunk], wanted[:trunk], atol=2e-5)
    np.testing.assert_allclose(
      states[begin : begin + rest], wanted[trunk : trunk + rest], atol=2e-5
    )


def test_the_mesh_does_not_change_a_state():
  params = packed.random_params(CONFIG)
  batch, _ = make_batch(CONFIG, [*ROWS, *ROWS])
  alone = run(CONFIG, params, batch)
  mesh = sharding.make_mesh(2, 2, 2)
  layout = sharding.parameter_shardings(params, axes.logical_axes(params), mesh)
  with sharding.use(mesh):
    spread = jax.jit(mllm.hidden_states, static_argnums=0)(
      CONFIG, jax.device_put(params, layout), sharding.put_rows(batch, mesh)
    )
  np.testing.assert_allclose(spread, alone, atol=2e-5)


def test_micro_batches_keep_their_places():
  params, (batch, _) = packed.random_params(CONFIG), make_batch(CONFIG)
  whole = run(CONFIG, params, batch)
  parts = train_step.split_batch(jax.tree.map(jnp.asarray, batch), 2, 1)
  for part in range(2):
    states = run(CONFIG, params, jax.tree.map(lambda x, n=part: x[n], parts))
    np.testing.assert_allclose(states, whole[part : part + 1], atol=2e-5)
