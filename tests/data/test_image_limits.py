"""Limits that make images take fewer tokens, and what they save."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.pool import pool_summary, summary_text
from mllm_selector_jax.types import ImageTokens, InputError
from tests.data.test_image_forms import INTERNVL, NEXT, ONEVISION
from tests.data.test_table import make_line
from tests.fixed_images import fixed_images

TOKENS = ImageTokens(7, (3,), (5,))
SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@pytest.mark.parametrize("options", [INTERNVL, NEXT, ONEVISION])
@given(size=SIZES, most=st.integers(2, 40))
def test_no_image_has_more_tiles_than_allowed(options, size, most):
  layout = BaseImages(options, TOKENS, max_tiles=most).lay_out(*size)
  assert layout.tiles <= most + 1  # one of the whole image
  free = BaseImages(options, TOKENS).lay_out(*size)
  if free.tiles <= most + 1 and options is INTERNVL:
    assert layout.tiles == free.tiles


def test_one_tile_is_the_whole_image():
  images = BaseImages(INTERNVL, TOKENS, max_tiles=1)
  assert images.lay_out(4000, 300).tiles == 1
  with pytest.raises(InputError, match=r"max_tiles=1.*has 2 tiles"):
    BaseImages(NEXT, TOKENS, max_tiles=1)


@given(size=SIZES, pixels=st.integers(1, 500_000))
def test_an_image_keeps_its_shape_within_the_budget(size, pixels):
  images = BaseImages(INTERNVL, TOKENS, resize_pixels=pixels)
  width, height = images.fit_size(*size)
  if size[0] * size[1] <= pixels:
    assert (width, height) == size
  elif min(width, height) > 1:
    assert width * height <= pixels
    assert abs(width - size[0] * np.sqrt(pixels / size[0] / size[1])) < 1
    assert abs(height - size[1] * np.sqrt(pixels / size[0] / size[1])) < 1


def test_pixels_are_those_of_the_smaller_image():
  image = Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
  )
  limited = BaseImages(INTERNVL, TOKENS, resize_pixels=30_000)
  smaller = image.resize((200, 150), INTERNVL.resample)
  np.testing.assert_array_equal(
    limited.cut_tiles(image), BaseImages(INTERNVL, TOKENS).cut_tiles(smaller)
  )
  assert len(limited.cut_tiles(image)) == limited.lay_out(400, 300).tiles


def test_a_base_of_one_square_is_not_resized():
  images = fixed_images(4, 16)
  limited = BaseImages(images.options, images.tokens, 1, 10)
  assert limited.fit_size(90, 70) == (90, 70)
  assert limited.count_saved(90, 70) == (0, 0)


@pytest.mark.parametrize("options", [INTERNVL, NEXT])
@given(size=SIZES, most=st.integers(2, 12), pixels=st.integers(100, 10**6))
def test_what_is_saved_is_the_difference(options, size, most, pixels):
  free = BaseImages(options, TOKENS)
  tiles = BaseImages(options, TOKENS, most)
  both = BaseImages(options, TOKENS, most, pixels)
  counts = [len(images.lay_out(*size).tokens) for images in (free, tiles, both)]
  assert both.count_saved(*size) == (counts[0] - counts[1], counts[1] - counts[2])


def test_the_summary_counts_what_each_limit_saves():
  images = BaseImages(INTERNVL, TOKENS, max_tiles=2)
  tally = pool_summary.Tally(images)
  for row, size in enumerate([(448, 448), (1344, 896)]):
    tally.add(make_line(row, sizes=size), [1])
  found = tally.result()
  # Six tiles and a thumbnail against two tiles at most: 2 x 1 and a thumbnail.
  saved = (7 - 3) * 256
  assert found["images"]["saved"] == {"max_tiles": {"images": 1, "tokens": saved}}
  assert f"saves {saved:,} tokens" in summary_text.format_summary(found)
