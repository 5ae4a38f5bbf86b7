"""The check stage: what its table follows from."""

import json

from mllm_selector_jax.data.table import read_table
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
