"""Tiles, layouts and limits of images at their own resolution (Qwen2-VL and later).

The independent reference is transformers: its image processor in its Pillow form, its
order of windows, and its way to open a file.
"""

import io

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_utils import load_image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
  Qwen2VLImageProcessorPil,
)
from transformers.vision_utils import get_vision_window_index

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.images.image_forms.native_form import place_tiles
from mllm_selector_jax.types import ImageOptions, ImageTokens, InputError, RowError
from tests.data.test_image_forms import CLIP, HALF, NEXT, RAW, noise, quick, sizes

TOKENS = ImageTokens(7, (3,), (5,))
# Sides and bounds as Qwen2.5-VL and Qwen3-VL are published.
QWEN2_5 = ImageOptions(
  28,
  CLIP,
  HALF,
  form="native",
  grid=1,
  min_pixels=3136,
  max_pixels=12_845_056,
  window=4,
  rotate=True,
)
QWEN3 = ImageOptions(
  32,
  HALF,
  HALF,
  form="native",
  grid=1,
  min_pixels=65_536,
  max_pixels=16_777_216,
  rotate=True,
)
HALF_WAY = ((42, 70), (70, 42), (98, 98), (14, 126), (154, 42))


def make_processor(options, **fields):
  bounds = {"shortest_edge": options.min_pixels, "longest_edge": options.max_pixels}
  return Qwen2VLImageProcessorPil(
    size=bounds,
    patch_size=options.size // 2,
    image_mean=options.mean,
    image_std=options.std,
    **fields,
  )


def list_squares(processed, side):
  """The processor's patches, each four joined to a square, row by row."""
  pixels = np.asarray(processed["pixel_values"])
  half = side // 2
  patches = pixels.reshape(-1, 2, 2, 3, 2, half, half)
  np.testing.assert_array_equal(patches[:, :, :, :, 0], patches[:, :, :, :, 1])
  squares = patches[:, :, :, :, 0].transpose(0, 1, 4, 2, 5, 3)
  return squares.reshape(-1, side, side, 3)


def with_examples(*values):
  def add(test):
    for value in values:
      test = example(*value)(test)
    return test

  return add


STRIPS = ((1, 1), (1, 200), (200, 1), (4999, 25), (3, 600))


@pytest.mark.parametrize("options", [QWEN2_5, QWEN3])
@quick
@given(sizes(9000), st.sampled_from([None, 50_176, 1_003_520]))
@with_examples(*[(size, None) for size in (*HALF_WAY, *STRIPS)])
@example((9000, 9000), None)
@example((3584, 3584), None)  # the very bound of Qwen2.5-VL
def test_tokens_are_the_processors(options, size, most):
  width, height = size
  images = BaseImages(options, TOKENS, resize_pixels=most)
  processor = make_processor(images.limited)
  layout = images.lay_out(width, height)
  patches = processor.get_number_of_image_patches(height, width)
  assert layout.tiles == layout.grid[0] * layout.grid[1] == patches // 4
  assert layout.tokens.tolist() == [3, *[7] * (patches // 4), 5]
  assert images.lay_out(width, height, images=3) is layout


@pytest.mark.parametrize("options", [QWEN2_5, QWEN3])
@quick
@given(sizes(500), st.sampled_from([None, 12_544, 50_176]))
@with_examples(*[(size, None) for size in (*HALF_WAY, *STRIPS)])
def test_pixels_and_grid_are_the_processors(options, size, most):
  image, images = noise(*size), BaseImages(options, TOKENS, resize_pixels=most)
  wanted = make_processor(images.limited, **RAW)(image)
  layout = images.lay_out(*size)
  tiles = images.cut_tiles(image)
  assert [1, *(2 * side for side in layout.grid)] == wanted["image_grid_thw"][
    0
  ].tolist()
  squares = list_squares(wanted, options.size)
  np.testing.assert_array_equal(tiles[layout.features], squares)
  rows, columns = layout.places.T
  np.testing.assert_array_equal(tiles, squares[rows * layout.grid[1] + columns])
  assert tiles.dtype == np.uint8


def test_normalised_pixels_are_the_processors():
  image = noise(131, 77)
  wanted = list_squares(make_processor(QWEN2_5)(image), 28)
  images = BaseImages(QWEN2_5, TOKENS)
  tiles = images.cut_tiles(image)[images.lay_out(131, 77).features]
  found = (tiles / np.float32(255) - np.float32(CLIP)) / np.float32(HALF)
  np.testing.assert_allclose(found, wanted, atol=1e-6)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 2, 4, 7]))
@example(5, 7, 4)
@example(4, 8, 4)
@example(1, 1, 4)
def test_tiles_lie_window_by_window_as_the_tower_has_them(rows, columns, window):
  grid = torch.tensor([[1, 2 * rows, 2 * columns]])
  order, bounds = get_vision_window_index(
    grid, spatial_merge_size=2, window_size=window * 28, patch_size=14
  )
  places = place_tiles(rows, columns, window)
  np.testing.assert_array_equal(places[:, 0] * columns + places[:, 1], order)
  # A window's tiles, and no others, lie between two of transformers' bounds.
  number = places // window @ [columns, 1]
  changes = np.flatnonzero(np.diff(number)) + 1
  wanted = sorted(set(bounds.tolist()))
  np.testing.assert_array_equal([0, *changes * 4, rows * columns * 4], wanted)


def test_without_windows_tiles_lie_row_by_row():
  assert place_tiles(2, 3, 0).tolist() == [
    [0, 0],
    [0, 1],
    [0, 2],
    [1, 0],
    [1, 1],
    [1, 2],
  ]
  layout = BaseImages(QWEN3, TOKENS).lay_out(640, 480)
  assert layout.grid == (15, 20)
  np.testing.assert_array_equal(layout.features, np.arange(300))


def save(image, kind, **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def make_exif(turn):
  exif = Image.Exif()
  exif[0x0112] = turn
  return exif


def draw_transparent(mode):
  rng = np.random.default_rng(0)
  channels = {"LA": 2, "RGBA": 4}.get(mode, 4)
  image = Image.fromarray(rng.integers(0, 256, (40, 60, channels), np.uint8))
  return image.convert("P") if mode == "P" else image


FILES = {
  **{
    f"turned {turn}": save(noise(90, 50), "JPEG", exif=make_exif(turn))
    for turn in range(1, 9)
  },
  "turned PNG": save(noise(90, 50), "PNG", exif=make_exif(6)),
  "RGBA": save(draw_transparent("RGBA"), "PNG"),
  "LA": save(draw_transparent("LA"), "PNG"),
  "palette": save(draw_transparent("P"), "PNG", transparency=3),
  "gray": save(noise(33, 70).convert("L"), "PNG"),
  "CMYK": save(noise(33, 70).convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_opened_as_by_transformers(tmp_path, name):
  path = tmp_path / "image"
  path.write_bytes(FILES[name])
  wanted = load_image(str(path))
  images = BaseImages(QWEN2_5, TOKENS)
  image = images.decode(FILES[name], 10_000)
  assert image.size == wanted.size == images.measure(FILES[name], 10_000)
  np.testing.assert_array_equal(image, wanted)
  # Without the entry of a transparent colour, which the processor would paint white.
  opened = Image.fromarray(np.asarray(wanted))
  squares = list_squares(make_processor(QWEN2_5, **RAW)(opened), 28)
  layout = images.lay_out(*image.size)
  np.testing.assert_array_equal(images.cut_tiles(image)[layout.features], squares)


def test_a_strip_is_refused_where_the_processor_refuses_it():
  images = BaseImages(QWEN2_5, TOKENS)
  allowed, refused = (save(Image.new("RGB", (width, 2)), "PNG") for width in (400, 401))
  processor = make_processor(QWEN2_5)
  assert (
    images.decode(allowed, 10**6).size == images.measure(allowed, 10**6) == (400, 2)
  )
  processor(images.decode(allowed, 10**6))
  with pytest.raises(ValueError, match="aspect ratio"):
    processor(Image.new("RGB", (401, 2)))
  for read in (images.decode, images.measure):
    with pytest.raises(RowError, match=r"huge image: 401 x 2 .* 200 times the other"):
      read(refused, 10**6)


def test_a_long_image_is_refused_only_where_it_may_be_padded():
  data = save(Image.new("L", (1200, 30)), "PNG")
  assert BaseImages(QWEN2_5, TOKENS).decode(data, 40_000).size == (1200, 30)
  for read in (BaseImages(NEXT, TOKENS).decode, BaseImages(NEXT, TOKENS).measure):
    with pytest.raises(RowError, match="its padded square is too large"):
      read(data, 40_000)


@quick
@given(sizes(4000), st.integers(3136, 3_000_000))
def test_a_limit_of_pixels_is_the_forms_own_bound(size, most):
  images = BaseImages(QWEN2_5, TOKENS, resize_pixels=most)
  assert images.fit_size(*size) == size  # nothing is resized twice
  free, limited = BaseImages(QWEN2_5, TOKENS).lay_out(*size), images.lay_out(*size)
  assert images.count_saved(*size) == (0, free.tiles - limited.tiles)
  if size[0] * size[1] >= QWEN2_5.min_pixels:  # others are enlarged, past both bounds
    assert limited.tiles * 28**2 <= most or 1 in limited.grid
  if free.tiles * 28**2 <= most:
    assert limited is free


def test_a_limit_below_the_least_pixels_lowers_both():
  limited = BaseImages(QWEN3, TOKENS, resize_pixels=50_176).limited
  assert (limited.min_pixels, limited.max_pixels) == (50_176, 50_176)
  loose = BaseImages(QWEN3, TOKENS, resize_pixels=10**9).limited
  assert loose == QWEN3


def test_tiles_are_no_limit_of_this_form():
  with pytest.raises(InputError, match=r"max_tiles=6.*resize_pixels; each 784 pixels"):
    BaseImages(QWEN2_5, TOKENS, max_tiles=6)
