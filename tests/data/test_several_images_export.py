"""Exports and prepared pools of rows of no image, one, or several."""

import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.packing import loader
from mllm_selector_jax.data.pool import pool_export, prepared_pool
from tests.data.several_images import (
  IMAGES_OF,
  check,
  make_encoder,
)


@pytest.mark.parametrize("name", ["llava", "llama_factory", "ms_swift", "trl"])
def test_every_export_is_read_as_the_same_rows(checked, tmp_path, name):
  _, table, images = checked
  kept = pool_export.Kept(
    table, [0, 1, 3, 4, 5], images, tmp_path / "images", tmp_path / "images"
  )
  out = tmp_path / name
  out.mkdir()
  pool_export.EXPORTS[name](kept, out)
  (written,) = out.glob("selected.*")
  _, again = check(str(written), [str(kept.images)], tmp_path / "again")
  assert again.ok.all(), again.detail.tolist()
  assert again.hash.tolist() == table.hash[kept.rows].tolist()
  for row, before in enumerate(kept.rows):
    for column in "image_hashes", "pixels", "sizes":
      assert getattr(again, column)[row] == getattr(table, column)[before]
    # A part's text is put on a line of its own, which may add a token.
    if name != "trl":
      assert again.tokens[row] == table.tokens[before]


def test_records_are_exported_verbatim_and_as_ids(checked, tmp_path):
  _, table, images = checked
  kept = pool_export.Kept(table, [2, 3], images, tmp_path / "x", tmp_path / "x")
  for name in "verbatim", "ids":
    (tmp_path / name).mkdir()
    pool_export.EXPORTS[name](kept, tmp_path / name)
  (written,) = (tmp_path / "verbatim").iterdir()
  _, again = check(str(written), images, tmp_path / "again")
  assert again.hash.tolist() == table.hash[[2, 3]].tolist()
  lines = (tmp_path / "ids/ids.txt").read_text().splitlines()[1:]
  assert [line.split("\t")[2] for line in lines] == table.hash[[2, 3]].tolist()


def test_trl_has_a_part_for_each_image(checked, tmp_path, place):
  _, table, images = checked
  kept = pool_export.Kept(table, [4], images, tmp_path / "x", tmp_path / "x")
  pool_export.export_trl(kept, tmp_path)
  (row,) = pq.read_table(tmp_path / "selected.parquet").to_pylist()
  kinds = [part["type"] for part in row["messages"][0]["content"]]
  assert kinds == ["image", "text", "image", "text", "image", "text"]
  files = [(place / "images" / name).read_bytes() for name in IMAGES_OF[4]]
  assert [image["bytes"] for image in row["images"]] == files


def test_a_prepared_pool_has_the_same_rows(checked, tmp_path):
  _, table, images = checked
  made = tmp_path / "made"
  made.mkdir()
  prepared_pool.write_shards(
    tmp_path / "table", images, made, 4, 1, lambda *_: None
  )  # fmt: skip
  prepared_pool.write_description(made, len(table), 4)
  _, again = check(str(made), None, tmp_path / "again")
  for column in (
    "id", "hash", "images", "image_hashes", "pixels", "sizes", "tokens", "supervised",
    "image_tokens", "tiles", "prefix_tokens", "prefix_keys", "status",
  ):  # fmt: skip
    assert list(getattr(again, column)) == list(getattr(table, column)), column
  options = ImageFolders.of(None), 10_000, loader.Cache(1 << 20)
  reader = loader.Reader(again, make_encoder(), *options)
  assert [len(cut) for cut in reader.read(3)[1]] == [3, 3, 1]
