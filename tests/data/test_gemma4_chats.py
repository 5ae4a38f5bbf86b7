"""Pixels of Gemma 4 against its processor; see test_gemma_chats.py, too."""

import numpy as np
import pytest
from transformers.models.gemma4.image_processing_pil_gemma4 import (
  get_aspect_ratio_preserving_size,
)

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.images.image_forms.gemma4_form import choose_grid
from mllm_selector_jax.types import ImageOptions, InputError
from tests.data.test_gemma_chats import COUNTS, GEMMA4
from tests.data.test_image_forms import noise
from tests.gemma4_files import make_gemma_tokenizer, make_processor, read_tokens

OPTIONS = GEMMA4.options


@pytest.mark.parametrize(
  "size", [(90, 60), (48, 48), (5, 150), (900, 7), (1, 1), (54, 42), (400, 300)]
)
def test_pixels_are_the_processors(size):
  encoder = GEMMA4.make()
  image = noise(*size)
  processor = make_processor(encoder.tokenizer, encoder.images.options)
  found = processor.image_processor(image, do_rescale=False)
  layout = encoder.images.lay_out(*size)
  count = found["num_soft_tokens_per_image"][0]
  assert layout.tiles == len(layout.features) == count == len(layout.tokens) - 2
  rows, columns = layout.grid
  tiles = encoder.images.cut_tiles(image).reshape(rows, columns, 6, 6, 3)
  whole = tiles.swapaxes(1, 2).reshape(rows * 6, columns * 6, 3)
  places = found["image_position_ids"][0][: 9 * count]
  cut = whole.reshape(rows * 3, 2, columns * 3, 2, 3).swapaxes(1, 2)
  ours = cut[places[:, 1], places[:, 0]].reshape(9 * count, -1)
  np.testing.assert_array_equal(ours, found["pixel_values"][0][: 9 * count])


def test_grids_are_the_processors():
  rng = np.random.default_rng(0)
  sides = np.exp(rng.uniform(0, np.log(4000), (2000, 2))).astype(int)
  for width, height in sides.tolist():
    if max(width, height) > 200 * min(width, height):
      continue
    wanted = get_aspect_ratio_preserving_size(height, width, 2, 9 * COUNTS[0], 3)
    rows, columns = choose_grid(OPTIONS, width, height)
    assert (6 * rows, 6 * columns) == wanted


def test_pixels_are_limited_to_counts_that_the_processor_knows():
  images = BaseImages(OPTIONS, read_tokens(make_gemma_tokenizer()))
  wide = BaseImages(
    ImageOptions(**{**vars(OPTIONS), "max_pixels": COUNTS[2] * 36}), images.tokens
  )
  limited = BaseImages(wide.options, wide.tokens, resize_pixels=200 * 36).limited
  assert limited.max_pixels == COUNTS[1] * 36
  with pytest.raises(
    InputError, match=r"resize_pixels=2000: .* one of 70, 140, 280 to"
  ):
    BaseImages(wide.options, wide.tokens, resize_pixels=2000)
