"""Pools of rows whose images are read at their own resolution (Qwen-VL)."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.packing import assembly, loader
from mllm_selector_jax.data.pool import prepared_pool
from mllm_selector_jax.data.pool.summary_text import format_summary
from mllm_selector_jax.types import ImageTokens, Tiling
from tests.data.pools_on_the_spot import write_images
from tests.data.several_images import (
  IMAGES_OF,
  MARKS,
  SQUARE,
  WIDE,
  check,
  draw_images,
  make_encoder,
  make_records,
  open_image,
  see,
  write_pool,
)
from tests.data.test_image_forms import noise
from tests.data.test_native_form import QWEN2_5

# Tiles of 4 x 4 pixels in windows of 2 x 2 tiles; an image 16 x 8 has 2 x 4 tiles.
NATIVE = dataclasses.replace(
  QWEN2_5, size=4, window=2, min_pixels=4 * 16, max_pixels=10 * 16
)
GRIDS = {WIDE: (2, 4), SQUARE: (2, 2), "b/0.png": None}
LENGTH = 900


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  return draw_images(tmp_path_factory.mktemp("native"))


@pytest.fixture
def checked(place, tmp_path):
  path, images = write_pool("files", make_records(), place, tmp_path)
  encoder = make_encoder(NATIVE)
  return *check(path, images, tmp_path / "table", encoder), encoder, images


def open_reader(table, encoder, images):
  folders = ImageFolders.of(images)
  return loader.Reader(table, encoder, folders, 10_000, loader.Cache(1 << 20))


def test_columns_count_a_tile_for_each_token(checked, place):
  found, table, encoder, _ = checked
  assert table.ok.all(), list(zip(table.reason, table.detail, strict=True))
  for row, names in enumerate(IMAGES_OF):
    layouts = [encoder.images.lay_out(*open_image(place, name).size) for name in names]
    for name, layout in zip(names, layouts, strict=True):
      assert GRIDS[name] in (None, layout.grid)
    tiles = sum(layout.tiles for layout in layouts)
    assert table.tiles[row] == tiles
    assert table.image_tokens[row] == tiles + MARKS * len(names)
    assert table.taps[row] == 0
  text = format_summary(found)
  assert f"tiles        {table.tiles.sum():,} of 12 images" in text


def test_rows_that_begin_alike_share_their_longest_beginning(checked):
  table = checked[1]
  prefixes = table.prefixes
  keys = [
    set(prefixes.keys[start:stop].tolist())
    for start, stop in zip(prefixes.bounds, prefixes.bounds[1:], strict=False)
  ]
  pairs = [(1, 3), (2, 3), (2, 4), (2, 5), (4, 5)]
  assert [len(keys[one] & keys[other]) for one, other in pairs] == [2, 1, 2, 2, 2]


def test_batches_say_where_each_tile_lies(checked):
  _, table, encoder, images = checked
  reader = open_reader(table, encoder, images)
  steps = [[[2, 0], [3]], [[4, 1], [5]]]
  shape = assembly.find_steps_shape(
    steps, assembly.Counts.of_pool(table), LENGTH, Tiling(1, 4, native=True, axes=True)
  )
  for step in steps:
    batch, _ = loader.MakeBatch(reader, shape)(loader.as_trees(step))
    number = tile = 0
    for line, rows in enumerate(step):
      start = 0
      for row in rows:
        sample, tiles = reader.read(row)
        for image, cut in zip(sample.images, tiles, strict=True):
          layout, number = image.layout, number + 1
          span = slice(tile, tile + layout.tiles)
          np.testing.assert_array_equal(batch.images[0, span], cut)
          wanted = np.pad(layout.places, ((0, 0), (1, 2)), constant_values=0)
          wanted[:, 0], wanted[:, 3:] = number, layout.grid
          np.testing.assert_array_equal(batch.places[0, span], wanted)
          # The tokens of an image name its tiles in raster order.
          at = start + image.start + 1 + np.arange(layout.tiles)
          lies = batch.places[0, batch.patches[line, at], 1:3]
          raster = np.stack(np.divmod(np.arange(layout.tiles), layout.grid[1]), -1)
          np.testing.assert_array_equal(lies, raster)
          tile += layout.tiles
        start += len(sample.tokens)
    assert (batch.places[0, tile:] == 0).all() and (batch.patches >= 0).sum() == tile


def test_the_summary_counts_what_a_limit_saves(place, tmp_path):
  path, images = write_pool("files", make_records(), place, tmp_path)
  free = make_encoder(NATIVE)
  limited = make_encoder(NATIVE)
  limited.images = BaseImages(NATIVE, free.images.tokens, resize_pixels=6 * 16)
  (tmp_path / "free").mkdir()
  _, table = check(path, images, tmp_path / "free/table", free)
  found, fewer = check(path, images, tmp_path / "table", limited)
  saved = (table.tiles - fewer.tiles).sum()
  uses = sum(name == WIDE for names in IMAGES_OF for name in names)
  counted = found["images"]["saved"]["resize_pixels"]
  assert counted["tokens"] == saved == (table.tokens - fewer.tokens).sum() > 0
  assert counted["images"] >= uses
  assert f"which saves {saved:,} tokens" in format_summary(found)
  sample, tiles = open_reader(fewer, limited, images).read(1)
  assert len(tiles[0]) == sample.images[0].layout.tiles <= 6


def test_rows_of_too_many_images_are_set_aside(place, tmp_path):
  path, images = write_pool("files", make_records(), place, tmp_path)
  _, table = check(path, images, tmp_path / "table", make_encoder(NATIVE), max_images=2)
  assert table.ok.tolist() == [len(names) < 3 for names in IMAGES_OF]


def test_a_strip_sets_its_row_aside(place, tmp_path):
  write_images(tmp_path / "images", "b/0.png")
  Image.new("RGB", (201, 1)).save(tmp_path / "images/strip.png")
  Image.new("RGB", (200, 1)).save(tmp_path / "images/allowed.png")
  asked = "<image>\nwhat is it?"
  records = [see(0, "strip.png", question=asked), see(1, "allowed.png", question=asked)]
  path, images = write_pool("files", records, tmp_path, tmp_path)
  _, table = check(path, images, tmp_path / "table", make_encoder(NATIVE))
  assert table.reason.tolist() == ["huge image", None]
  assert "200 times the other" in table.detail[0]


def test_a_prepared_pool_has_the_same_rows(checked, tmp_path):
  _, table, encoder, images = checked
  made = tmp_path / "made"
  made.mkdir()
  prepared_pool.write_shards(
    tmp_path / "table", [images], made, 4, 1, lambda *_: None
  )  # fmt: skip
  prepared_pool.write_description(made, len(table), 4)
  _, again = check(str(made), None, tmp_path / "again", encoder)
  for column in ("hash", "pixels", "sizes", "tokens", "tiles", "prefix_keys", "status"):
    assert list(getattr(again, column)) == list(getattr(table, column)), column


TURNED = [
  (NATIVE, (8, 4), (4, 8)),
  (dataclasses.replace(NATIVE, window=0), (40, 4), (4, 40)),
]


@pytest.mark.parametrize(("options", "size", "turned"), TURNED)
def test_white_images_of_exchanged_sides_are_not_the_same(options, size, turned):
  images = BaseImages(options, ImageTokens(7))
  white = [Image.new("RGB", each, "white") for each in (size, turned)]
  tiles = [images.cut_tiles(image) for image in white]
  np.testing.assert_array_equal(*tiles)  # only where they lie differs
  hashes = [images.hash_pixels(image) for image in white]
  assert hashes[0] != hashes[1]


def test_the_same_tiles_in_the_same_places_are_the_same():
  images = BaseImages(NATIVE, ImageTokens(7))
  large = noise(12, 12).resize((16, 8))
  assert images.hash_pixels(large) == images.hash_pixels(large.copy())
  # Two sizes that are resized to the same grid of one colour.
  white = [Image.new("RGB", size, "white") for size in ((16, 8), (17, 9))]
  assert len({images.hash_pixels(image) for image in white}) == 1
