"""The check and the loader of pools whose rows have no image, one, or several."""

import dataclasses
import hashlib

import numpy as np
import pytest

from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.packing import assembly, loader
from mllm_selector_jax.data.pool.summary_text import format_summary
from mllm_selector_jax.types import InputError, Tiling
from tests.data.pools_on_the_spot import make_record, write_images
from tests.data.several_images import (
  IMAGES_OF,
  MARKS,
  SQUARE,
  TILED,
  TILES,
  WIDE,
  check,
  make_encoder,
  make_records,
  open_image,
  see,
  write_inside,
  write_pool,
)


def read_options(checked):
  _, table, images = checked
  folders = ImageFolders.of(images)
  return table, make_encoder(), folders, 10_000, loader.Cache(1 << 20)


def test_each_row_has_its_images_in_order(checked, place):
  found, table, _ = checked
  assert table.ok.all(), list(zip(table.reason, table.detail, strict=True))
  assert list(table.images) == IMAGES_OF
  for row, names in enumerate(IMAGES_OF):
    files = [(place / "images" / name).read_bytes() for name in names]
    digests = tuple(hashlib.sha256(data).hexdigest() for data in files)
    assert table.image_hashes[row] == digests
    sizes = [open_image(place, name).size for name in names]
    assert table.image_sizes(row) == sizes
    assert len(set(table.pixels[row])) == len(set(names))
    tiles = [TILES[name] for name in names]
    assert table.tiles[row] == sum(tiles)
    assert table.image_tokens[row] == sum(4 * count + MARKS for count in tiles)
  assert found["images"]["a_row"] == {"0": 1, "1": 1, "2": 1, "3": 3}
  assert found["images"]["distinct"] == 3
  assert found["images"]["tiles"] == table.tiles.sum()
  text = format_summary(found)
  assert "4 rows have more than one image (2: 1, 3: 3)" in text
  assert f"tiles        {table.tiles.sum():,} of 12 images" in text


def test_rows_that_begin_alike_share_their_longest_beginning(checked):
  _, table, _ = checked
  prefixes = table.prefixes
  assert np.diff(prefixes.bounds).tolist() == [0, 2, 4, 4, 4, 2]
  by_row = [
    prefixes.keys[start:stop].tolist()
    for start, stop in zip(prefixes.bounds, prefixes.bounds[1:], strict=False)
  ]
  common = {
    (one, other): len(set(by_row[one]) & set(by_row[other]))
    for one, other in [(1, 3), (2, 3), (2, 4), (2, 5), (4, 5)]
  }
  # Rows 2, 4 and 5 have the system text and the first image in common.
  assert common == {(1, 3): 2, (2, 3): 1, (2, 4): 2, (2, 5): 2, (4, 5): 2}
  for row in 2, 3, 4:
    span = slice(prefixes.bounds[row] + 1, prefixes.bounds[row + 1])
    tiles = [TILES[name] for name in IMAGES_OF[row]]
    assert prefixes.tiles[span].tolist() == np.cumsum(tiles).tolist()


def test_the_reader_gives_each_image_its_tiles(checked, place):
  options = read_options(checked)
  encoder, reader = options[1], loader.Reader(*options)
  for _ in range(2):  # from the files, and from the cache
    for row, (record, names) in enumerate(zip(make_records(), IMAGES_OF, strict=True)):
      sample, tiles = reader.read(row)
      images = [open_image(place, name) for name in names]
      wanted = encoder.encode(record["conversations"], [image.size for image in images])
      np.testing.assert_array_equal(sample.tokens, wanted.tokens)
      assert [len(cut) for cut in tiles] == [TILES[name] for name in names]
      for cut, image in zip(tiles, images, strict=True):
        np.testing.assert_array_equal(cut, encoder.images.cut_tiles(image, len(names)))


def test_batches_hold_all_tiles_of_a_row(checked):
  options = read_options(checked)
  table, reader = options[0], loader.Reader(*options)
  counts = assembly.Counts.of_pool(table)
  steps = [[[2, 0], [3]], [[4, 1], [5]]]
  length = int(max(table.tokens[row].sum() for step in steps for row in step))
  shape = assembly.find_steps_shape(steps, counts, length, Tiling(4, 8))
  made = loader.MakeBatch(reader, shape)
  for step in steps:
    batch, _ = made(loader.as_trees(step))
    tile = 0
    for number, rows in enumerate(step):
      start = 0
      for row in rows:
        sample, tiles = reader.read(row)
        for image, cut in zip(sample.images, tiles, strict=True):
          held = batch.images[0, tile : tile + len(cut)]
          np.testing.assert_array_equal(held, cut)
          places = start + image.start + 1 + np.arange(len(image.layout.features))
          wanted = tile * 4 + np.arange(len(places))
          np.testing.assert_array_equal(batch.patches[number, places], wanted)
          tile += len(cut)
        start += len(sample.tokens)
    assert (batch.patches >= 0).sum() == 4 * tile


@pytest.mark.parametrize("kind", ["files", "parquet"])
def test_one_unusable_image_of_three_sets_the_row_aside(place, tmp_path, kind):
  write_images(tmp_path / "images", "b/0.png", "broken.png")
  for name in WIDE, SQUARE:
    path = tmp_path / "images" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((place / "images" / name).read_bytes())
  broken = tmp_path / "images/broken.png"
  broken.write_bytes(broken.read_bytes()[:70])
  records = [
    see(0, SQUARE, WIDE, "b/0.png"),
    see(1, SQUARE, "broken.png", WIDE),
    make_record(2, "broken.png"),
  ]
  reasons = [None, "unreadable image", "unreadable image"]
  if kind == "files":
    records.append(see(3, "gone.png", SQUARE, "broken.png"))
    reasons.append("missing image")
  path, images = write_pool(kind, records, tmp_path, tmp_path)
  found, table = check(path, images, tmp_path / "table")
  assert table.reason.tolist() == reasons
  assert table.detail[1].startswith("image 2 of 3: ")
  assert " of " not in table.detail[2]
  assert list(table.images)[1] == (SQUARE, "broken.png", WIDE)
  for column in "image_hashes", "pixels", "sizes":
    assert getattr(table, column)[1] == ()
  assert table.tiles.tolist()[1:] == [0] * (len(records) - 1)
  assert "image 2 of 3: " in found["aside"]["unreadable image"]["examples"][0]["detail"]
  if kind == "files":
    assert table.detail[3].startswith("image 1 of 3: ")


@pytest.mark.parametrize("most", [1, 2, 3])
def test_rows_of_too_many_images_are_set_aside_if_that_is_asked(place, tmp_path, most):
  path, images = write_pool("files", make_records(), place, tmp_path)
  _, table = check(path, images, tmp_path / "table", max_images=most)
  reasons = [
    "too many images" if len(names) > most else None for names in IMAGES_OF
  ]  # fmt: skip
  assert table.reason.tolist() == reasons
  for row in np.flatnonzero(~table.ok):
    assert table.detail[row] == f"the record has {len(IMAGES_OF[row])}, {most} allowed"
  assert list(table.images) == IMAGES_OF


def test_a_form_that_cuts_only_images_alone_in_their_row(place, tmp_path):
  options = dataclasses.replace(TILED, tile_several=False)
  path, images = write_pool("files", make_records(), place, tmp_path)
  encoder = make_encoder(options)
  _, table = check(path, images, tmp_path / "table", encoder)
  assert table.tiles.tolist() == [0, 3, 3, 3, 3, 2]
  assert table.pixels[1][0] != table.pixels[3][0] == table.pixels[3][1]
  folders, cache = ImageFolders.of(images), loader.Cache(1 << 20)
  reader = loader.Reader(table, encoder, folders, 10_000, cache)
  assert [len(cut) for cut in reader.read(3)[1]] == [1, 1, 1]
  assert [len(cut) for cut in reader.read(1)[1]] == [3]


def test_an_image_that_changed_is_told_by_its_name(place, tmp_path):
  path = write_inside(make_records(), place / "images", tmp_path / "pool.parquet")
  _, table = check(path, None, tmp_path / "table")
  records = make_records()
  records[2]["images"][1] = "b/0.png"
  write_inside(records, place / "images", tmp_path / "pool.parquet")
  reader = loader.Reader(
    table, make_encoder(), ImageFolders.of(None), 10_000, loader.Cache(0)
  )
  with pytest.raises(InputError, match=r"a/wide\.png \(row 2\) changed"):
    reader.read(2)


def test_rows_differ_by_the_order_of_their_images(place, tmp_path):
  records = [see(0, WIDE, SQUARE, SQUARE), see(1, SQUARE, WIDE, SQUARE)]
  records.append(see(2, WIDE, SQUARE, SQUARE))
  path, images = write_pool("files", records, place, tmp_path)
  _, table = check(path, images, tmp_path / "table", duplicate_rows="aside")
  assert table.reason.tolist() == [None, None, "duplicate row"]
  assert table.hash[0] != table.hash[1]
