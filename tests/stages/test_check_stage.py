"""The check stage: what its table follows from."""

import json

import numpy as np

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
  assert images.any() and (table.image_tokens[images] == 16).all()
  assert (table.tiles == images).all()
  for row in np.flatnonzero(images):
    (pixels,), beginnings = table.pixels[row], table.prefix_tokens[row]
    assert len(pixels) == 32 and min(table.prefix_keys[row]) > 0
    # What stands before the image, and that with the image.
    assert beginnings[1] - beginnings[0] == 16 < beginnings[1] < table.tokens[row]
  again, log = run()
  assert "check: pool is unchanged, kept" in log
  for name in ("bounds", "values"):
    was, now = getattr(table.pixels, name), getattr(again.pixels, name)
    assert now.tolist() == was.tolist()
  _, log = run(**{"model.pad_images": False})
  assert "check: making pool again: pad_images" in log


def test_a_base_of_another_template_is_told(tmp_path):
  base, work = tiny.make_base(tmp_path / "base"), tmp_path / "work"
  special = (*tiny.SPECIAL, "<|im_start|>", "<|im_end|>")
  tiny.make_tokenizer(300, special).save_pretrained(base)
  (base / "chat_template.jinja").write_text("<|im_start|>{{ messages }}<|im_end|>")
  told = "its own chat template looks like ChatML"
  for conversation, times in (("vicuna_v1", 1), ("chatml", 1)):
    with small_run.open_run(work, base, **{"model.conversation": conversation}) as run:
      check(run)
    assert (work / "log.txt").read_text().count(told) == times
  summary = json.loads((work / "pool_summary.json").read_text())
  assert "base" not in summary
