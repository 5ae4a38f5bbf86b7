"""The check stage: what its table follows from."""

from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.stages.check import check
from tests import small_run
from tests.models import tiny


def test_pixels_follow_from_how_images_are_prepared(tmp_path):
  base = tiny.make_base(tmp_path / "base")
  work = tmp_path / "work"

  def run(**overrides):
    with small_run.open_run(work, base, **overrides) as current:
      place = len((work / "log.txt").read_text()) if (work / "log.txt").exists() else 0
      check(current)
    return read_table(work / "pool.parquet"), (work / "log.txt").read_text()[place:]

  table, _ = run()
  images = table.ok & table.has_image
  assert images.any() and (table.trunk[images] > 16).all()
  assert (table.pixel_keys[images] > 0).all()
  again, log = run()
  assert "check: pool is unchanged, kept" in log
  assert again.pixels.tolist() == table.pixels.tolist()
  _, log = run(**{"model.pad_images": False})
  assert "check: making pool again: pad_images" in log
