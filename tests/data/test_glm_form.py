"""Sizes of GLM-4.1V's images, against transformers' own resizing."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from transformers.models.glm4v.image_processing_pil_glm4v import smart_resize

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.images.image_forms.glm_form import choose_grid, limit_pixels
from mllm_selector_jax.types import ImageOptions, ImageTokens, InputError
from tests.data.test_image_forms import HALF, noise

SIDE = 28
OPTIONS = ImageOptions(
  SIDE, HALF, HALF, form="glm4v", grid=1, min_pixels=12544, max_pixels=9633792
)
LENGTH = st.integers(1, 6000)


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(LENGTH, LENGTH, st.integers(1, 2**14), st.integers(0, 2**24))
def test_grids_are_transformers(width, height, least, more):
  ratio = max(width, height) / min(width, height)
  hypothesis.assume(ratio <= 195)  # a side that is enlarged is rounded down
  options = ImageOptions(
    SIDE, HALF, HALF, form="glm4v", min_pixels=least, max_pixels=least + more
  )
  wanted = smart_resize(2, height, width, 2, SIDE, least, least + more)
  assert choose_grid(options, width, height) == (wanted[0] // SIDE, wanted[1] // SIDE)


def test_a_limit_of_pixels_is_of_one_frame():
  limited = limit_pixels(OPTIONS, 10 * SIDE**2)
  assert (limited.min_pixels, limited.max_pixels) == (12544, 20 * SIDE**2)
  rows, columns = choose_grid(limited, 900, 700)
  assert 6 <= rows * columns <= 10
  assert limit_pixels(OPTIONS, 10**9) == OPTIONS


def test_tiles_lie_row_by_row():
  images = BaseImages(OPTIONS, ImageTokens(7, (5,), (6,)))
  layout = images.lay_out(112, 56)
  assert layout.grid == (2, 4) and layout.tokens.tolist() == [5, *[7] * 8, 6]
  pixels = np.asarray(noise(112, 56))
  tiles = images.cut_tiles(noise(112, 56))
  np.testing.assert_array_equal(tiles[5], pixels[SIDE:, SIDE : 2 * SIDE])
  with pytest.raises(InputError, match=r"model\.resize_pixels"):
    BaseImages(OPTIONS, ImageTokens(7), max_tiles=3)
