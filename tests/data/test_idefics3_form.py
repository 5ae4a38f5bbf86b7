"""Tiles, layouts and limits of the images of Idefics 3 and SmolVLM.

The independent reference is transformers: its image processors in their Pillow form,
and its processor for the tokens.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.types import ImageOptions
from tests.data.test_image_forms import HALF, RAW, noise, sizes
from tests.data.test_native_form import STRIPS, with_examples
from tests.idefics3_files import (
  make_family_tokenizer,
  make_image_processor,
  make_processor,
  read_tokens,
)

LANCZOS = 1
FAMILIES = ("idefics3", "smolvlm")
TOKENS = {name: read_tokens(make_family_tokenizer(name)) for name in FAMILIES}


def make_options(size, edge, form="smolvlm", grid=2, **fields):
  return ImageOptions(
    size,
    HALF,
    HALF,
    resample=LANCZOS,
    form=form,
    grid=grid,
    longest_edge=edge,
    rotate=True,
    **fields,
  )


OPTIONS = [
  make_options(16, 64),
  make_options(16, 61, "idefics3"),
  make_options(16, 40),
  make_options(16, 7),
  make_options(16, 64, split=False),
]
# As SmolVLM-256M, SmolVLM-2.2B and Idefics3-8B are published.
PUBLISHED = {
  "smolvlm": make_options(512, 2048, grid=8),
  "smolvlm 2.2b": make_options(384, 1536, grid=9),
  "idefics3": make_options(364, 1456, "idefics3", grid=13),
}
SQUARES = ((1, 1), (16, 16), (61, 61), (64, 64), (63, 65), (200, 1), (1, 200))


@pytest.mark.parametrize("options", OPTIONS, ids=range(len(OPTIONS)))
@settings(deadline=None, max_examples=60, derandomize=True)
@given(sizes(300), st.sampled_from([None, 32**2]), st.sampled_from([None, 1, 5, 9]))
@with_examples(*[(size, None, None) for size in (*SQUARES, *STRIPS)])
def test_tiles_and_their_places_are_the_processors(options, size, pixels, most):
  tokens, image = TOKENS[options.form], noise(*size)
  images = BaseImages(options, tokens, max_tiles=most, resize_pixels=pixels)
  processor = make_image_processor(options.form, images.limited, **RAW)
  wanted = processor(image, return_row_col_info=True)
  tiles, layout = images.cut_tiles(image), images.lay_out(*size)
  # All are whole squares: there is nothing to be padded, and nothing to be masked.
  assert np.asarray(wanted["pixel_attention_mask"]).all()
  pixels = np.asarray(wanted["pixel_values"])[0].transpose(0, 2, 3, 1)
  np.testing.assert_array_equal(tiles, pixels)
  assert layout.tiles == len(tiles)
  rows, columns = wanted["rows"][0][0], wanted["cols"][0][0]
  assert len(tiles) == rows * columns + 1
  assert rows * columns <= (most or 100)
  np.testing.assert_array_equal(layout.features, np.arange(4 * len(tiles)))
  assert (layout.tokens == tokens.image).sum() == 4 * len(tiles)


@pytest.mark.parametrize("name", PUBLISHED)
def test_tokens_are_the_processors(name):
  options = PUBLISHED[name]
  images = BaseImages(options, TOKENS[options.form])
  processor = make_processor(options.form, options)
  for size in ((64, 48), (40, 200), (9, 9), (1, 1)):
    found = processor(text=["<image>"], images=[noise(*size)], add_special_tokens=False)
    assert images.lay_out(*size).tokens.tolist() == found["input_ids"][0]


@pytest.mark.parametrize(
  ("size", "tiles"), [((336, 336), 17), ((640, 480), 13), ((1000, 200), 5)]
)
def test_tiles_of_the_published_size(size, tiles):
  images = BaseImages(PUBLISHED["smolvlm"], TOKENS["smolvlm"])
  assert images.lay_out(*size).tiles == tiles
  # Images are scaled up, too, so that a limit beyond theirs makes them cheaper.
  fewer = BaseImages(images.options, images.tokens, resize_pixels=1024**2)
  assert fewer.limited.longest_edge == 1024
  assert fewer.lay_out(*size).tiles < tiles
  saved = fewer.count_saved(*size)
  assert saved.by_tiles == 0
  gap = len(images.lay_out(*size).tokens) - len(fewer.lay_out(*size).tokens)
  assert saved.by_pixels == gap > 0


@pytest.mark.parametrize(("most", "edge"), [(1, 512), (3, 512), (4, 1024), (15, 1536)])
def test_a_number_of_tiles_is_that_of_a_square(most, edge):
  images = BaseImages(PUBLISHED["smolvlm"], TOKENS["smolvlm"], max_tiles=most)
  assert images.limited.longest_edge == edge
  along = edge // 512
  assert images.lay_out(900, 900).tiles == along**2 + (along > 1)


def test_an_image_that_is_not_cut_is_one_tile():
  options = make_options(16, 64, split=False)
  images = BaseImages(options, TOKENS["smolvlm"], max_tiles=1)
  assert images.limited == options
  layout = images.lay_out(300, 20)
  tokens = images.tokens
  assert layout.tokens.tolist() == [*tokens.begin, *[tokens.image] * 4, *tokens.end]
