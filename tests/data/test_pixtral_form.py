"""Tiles, layouts and limits of the images of Pixtral and Mistral 3.

The independent reference is transformers' image processor in its Pillow form.
"""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.types import ImageOptions, ImageTokens, InputError
from tests.data.test_image_forms import CLIP, HALF, RAW, noise, quick, sizes
from tests.data.test_native_form import FILES, STRIPS, with_examples
from tests.pixtral_files import PixtralImageProcessor

TOKENS = ImageTokens(7, end=(5,), between=(3,))
# As Pixtral 12B and Mistral Small 3.1 are published.
PIXTRAL = ImageOptions(
  16, CLIP, HALF, form="pixtral", grid=1, longest_edge=1024, rotate=True
)
MISTRAL = ImageOptions(
  28, CLIP, HALF, form="pixtral", grid=1, longest_edge=1540, rotate=True
)
BOUNDS = ((1540, 1540), (1541, 20), (20, 1541), (1024, 1024), (1025, 17), (16, 16))


def make_processor(options, **fields):
  return PixtralImageProcessor(
    size={"longest_edge": options.longest_edge},
    patch_size={"height": options.size, "width": options.size},
    image_mean=options.mean,
    image_std=options.std,
    **fields,
  )


def join_tiles(tiles, grid):
  """The image of which the tiles were cut, row by row."""
  side = tiles.shape[1]
  joined = tiles.reshape(*grid, side, side, 3).swapaxes(1, 2)
  return joined.reshape(grid[0] * side, grid[1] * side, 3)


def write_tokens(rows, columns):
  """As PixtralProcessor's `replace_image_token`: the last mark is another one."""
  tokens = ([7] * columns + [3]) * rows
  return [*tokens[:-1], 5]


@pytest.mark.parametrize("options", [PIXTRAL, MISTRAL])
@quick
@given(sizes(500), st.sampled_from([None, 12_544, 50_176]))
@with_examples(*[(size, None) for size in (*BOUNDS, *STRIPS)])
def test_pixels_and_tokens_are_the_processors(options, size, most):
  image, images = noise(*size), BaseImages(options, TOKENS, resize_pixels=most)
  wanted = make_processor(images.limited, **RAW)(image)
  layout = images.lay_out(*size)
  tiles = images.cut_tiles(image)
  side = options.size
  rows, columns = layout.grid
  assert wanted["image_sizes"] == [(rows * side, columns * side)]
  pixels = np.asarray(wanted["pixel_values"])[0].transpose(1, 2, 0)
  np.testing.assert_array_equal(join_tiles(tiles, layout.grid), pixels)
  assert layout.tiles == len(tiles) == rows * columns
  assert layout.tokens.tolist() == write_tokens(rows, columns)
  np.testing.assert_array_equal(layout.features, np.arange(len(tiles)))
  places = layout.places[:, 0] * columns + layout.places[:, 1]
  np.testing.assert_array_equal(places, np.arange(len(tiles)))
  assert images.lay_out(*size, images=3) is layout


@quick
@given(sizes(4000), st.sampled_from([None, 12_544]))
def test_a_turned_image_has_the_turned_grid(size, most):
  images = BaseImages(MISTRAL, TOKENS, resize_pixels=most)
  layout, turned = images.lay_out(*size), images.lay_out(*size[::-1])
  assert layout.grid == turned.grid[::-1]
  # A mark a row, so that a wide image takes fewer tokens than a tall one.
  assert len(layout.tokens) - layout.tiles == layout.grid[0]


def test_normalised_pixels_are_the_processors():
  image = noise(131, 77)
  wanted = np.asarray(make_processor(MISTRAL)(image)["pixel_values"])[0]
  images = BaseImages(MISTRAL, TOKENS)
  pixels = join_tiles(images.cut_tiles(image), images.lay_out(131, 77).grid)
  found = (pixels / np.float32(255) - np.float32(CLIP)) / np.float32(HALF)
  np.testing.assert_allclose(found, wanted.transpose(1, 2, 0), atol=1e-6)


def test_a_strip_that_transformers_fails_on_has_a_tile():
  with pytest.raises(ValueError, match="height=0"):
    make_processor(PIXTRAL)(Image.new("RGB", (2000, 1)))
  assert BaseImages(PIXTRAL, TOKENS).lay_out(2000, 1).grid == (1, 64)


@pytest.mark.parametrize("name", ["turned 6", "RGBA", "gray"])
def test_files_are_opened_as_by_transformers(name):
  images = BaseImages(PIXTRAL, TOKENS)
  image = images.decode(FILES[name], 10_000)
  assert image.size == images.measure(FILES[name], 10_000)
  wanted = np.asarray(make_processor(PIXTRAL, **RAW)(image)["pixel_values"])[0]
  layout = images.lay_out(*image.size)
  joined = join_tiles(images.cut_tiles(image), layout.grid)
  np.testing.assert_array_equal(joined, wanted.transpose(1, 2, 0))


@pytest.mark.parametrize("options", [PIXTRAL, MISTRAL])
@quick
@given(sizes(4000), st.integers(28**2, 3_000_000))
@example((1540, 1540), 1540**2)
def test_a_limit_of_pixels_is_the_forms_own_bound(options, size, most):
  images = BaseImages(options, TOKENS, resize_pixels=most)
  assert images.fit_size(*size) == size  # nothing is resized twice
  free, limited = BaseImages(options, TOKENS).lay_out(*size), images.lay_out(*size)
  saved = len(free.tokens) - len(limited.tokens)
  assert images.count_saved(*size) == (0, saved)
  side = options.size
  assert limited.tiles * side**2 <= most
  edge = min(math.isqrt(most), options.longest_edge)
  assert edge - side < images.limited.longest_edge <= edge
  if max(free.grid) * side <= math.isqrt(most) // side * side:
    assert limited is free


def test_the_least_limit_is_a_tile_along_the_side():
  images = BaseImages(MISTRAL, TOKENS, resize_pixels=5)
  assert images.limited.longest_edge == 28
  assert images.lay_out(4000, 30).tokens.tolist() == [7, 5]


def test_tiles_are_no_limit_of_this_form():
  with pytest.raises(InputError, match=r"max_tiles=6.*resize_pixels; each 784 pixels"):
    BaseImages(MISTRAL, TOKENS, max_tiles=6)
