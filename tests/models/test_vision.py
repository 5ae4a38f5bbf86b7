import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mllm_selector_jax.models import mllm, vision
from tests.models import packed


def test_pixels_are_standardised_a_channel():
  images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
  mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
  np.testing.assert_allclose(
    vision.normalise_pixels(images, mean, std),
    (images / 255 - np.array(mean)) / np.array(std),
    atol=1e-6,
  )


def test_patches_are_cut_row_by_row():
  pixels = np.arange(2 * 6 * 6 * 3).reshape(2, 6, 6, 3).astype(np.float32)
  patches = vision.cut_patches(pixels, 2)
  assert patches.shape == (2, 9, 12)
  for number in range(9):
    row, column = 2 * (number // 3), 2 * (number % 3)
    np.testing.assert_array_equal(
      patches[:, number],
      pixels[:, row : row + 2, column : column + 2].reshape(2, -1),
    )


@functools.partial(jax.jit, static_argnums=0)
def embed_images(config, params, images):
  patches = jnp.arange(config.patches)[None]
  return mllm.embed(config, params, 0 * patches, patches, images[None]).x


@pytest.mark.parametrize("layer, matters", [(-1, True), (-2, False)])
def test_layers_after_the_projected_one_do_not_matter(layer, matters):
  config = packed.make_config(feature_layer=layer)
  params = packed.random_params(config)
  images = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
  before = embed_images(config, params, images)
  params["vision"]["layers"] = jax.tree.map(
    lambda x: x.at[-1].add(1.0), params["vision"]["layers"]
  )
  after = embed_images(config, params, images)
  assert bool((before != after).any()) == matters


def run_tower(config, params, images):
  graph = nnx.split(vision.VisionTower(config, nnx.Rngs(0)))[0]
  return np.asarray(nnx.merge(graph, params["vision"])(images))


@pytest.mark.parametrize("select", ["default", "full"])
@pytest.mark.parametrize("layers", [(-2, 0, 3, -6), (-1,), (2, 2), (6, 1)])
def test_several_layers_are_each_as_if_alone(layers, select):
  config = packed.make_config(vision_layers=6, feature_layer=layers, select=select)
  params = packed.random_params(config)
  images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
  alone = [
    run_tower(dataclasses.replace(config, feature_layer=layer), params, images)
    for layer in layers
  ]
  found = run_tower(config, params, images)
  assert found.shape == (2, config.features, config.projected_width)
  np.testing.assert_allclose(
    found, np.concatenate(alone, axis=-1), rtol=1e-5, atol=1e-5
  )
  assert len({part.tobytes() for part in alone}) == len(set(config.projected_states))


def test_images_do_not_see_one_another():
  config = packed.CONFIG
  params = packed.random_params(config)
  images = np.random.default_rng(2).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
  before = embed_images(config, params, images)
  images[1] = 255 - images[1]
  np.testing.assert_array_equal(before, embed_images(config, params, images))
