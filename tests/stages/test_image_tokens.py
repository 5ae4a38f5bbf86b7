"""Bases whose `image_seq_length` is not what their tower gives, through whole runs."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
import transformers

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.stages import COMMANDS
from tests import small_run
from tests.models import tiny
from tests.models.huggingface import bases
from tests.models.huggingface.test_parity import load_torch

RUN = {
  "model.max_length": 256,
  "pool.demo.rows": 48,
  "pool.demo.questions": 1,
  "seed.rows": "8",
  "seed.batch": 4,
  "seed.row_length": 224,
  "score.row_length": 224,
  "tune.batch": 4,
  "tune.row_length": 224,
  "select.control": False,
  "evaluate.max_new_tokens": 2,
}
CLIP, SIGLIP = "clip_vision_model", "siglip_vision_model"
# Tower, side of an image and of a patch, tokens an image.
TOWERS = {
  "clip of 16": (CLIP, 32, 8, 16),
  "clip of 25": (CLIP, 40, 8, 25),
  "siglip of 16": (SIGLIP, 32, 8, 16),
  # As SigLIP-384 with patches of 14.
  "siglip of 9, pixels left over": (SIGLIP, 30, 8, 9),
}


def make_base(folder, tower, stated):
  """A base whose config.json states this `image_seq_length`; None states nothing."""
  kind, side, patch, _ = tower
  base = tiny.make_base(
    folder,
    tower=kind,
    vision_image_size=side,
    vision_patch_size=patch,
    llava_vision_feature_layer=-1,
    num_hidden_layers=1,
    vision_num_hidden_layers=1,
  )

  def change(config):
    if stated is None:
      del config["image_seq_length"]
    else:
      config["image_seq_length"] = stated

  bases.edit_json(base / "config.json", change)
  return base


def read_stated(folder):
  return json.loads((folder / "config.json").read_text())["image_seq_length"]


@pytest.mark.parametrize(
  ("name", "stated", "settings"),
  [
    ("clip of 25", 576, {}),
    ("siglip of 9, pixels left over", None, {}),
    ("clip of 16", 15, {"score.model": "the base"}),
    ("siglip of 16", 576, {"score.model": "the base", "select.rounds": 2}),
  ],
)
def test_a_whole_run_uses_and_writes_the_tower_s_number(
  tmp_path, name, stated, settings
):
  tower = TOWERS[name]
  base, work = make_base(tmp_path / "base", tower, stated), tmp_path / "work"
  own_seed = "score.model" not in settings
  if not own_seed:
    settings = {**settings, "score.model": str(base)}
  with small_run.open_run(work, base, **RUN, **settings) as current:
    COMMANDS["run"](current)
  written = [*work.rglob("hf")]
  wanted = ["arms/main/tuned/hf"] + ["seed/hf"] * own_seed
  wanted += ["rounds/2/arms/main/tuned/hf"] * ("select.rounds" in settings)
  assert sorted(written) == sorted((work / name).resolve() for name in wanted)
  for folder in written:
    assert read_stated(folder) == tower[3]
    assert huggingface.list_remarks(folder) == []
  assert json.loads((work / "arms/main/evaluation/results.json").read_text())
  log = (work / "log.txt").read_text()
  said = f"is {stated}, but the vision tower gives {tower[3]} tokens an image"
  # Once of the base at the check, and once of the model that scores.
  assert log.count(said) == (0 if stated is None else 1 + (not own_seed))
  summary = json.loads((work / "pool_summary.json").read_text())
  assert [said in remark for remark in summary.get("base", [])] == (
    [] if stated is None else [True]
  )


@pytest.mark.parametrize("stated", [None, 576, 15])
@pytest.mark.parametrize("name", TOWERS)
def test_an_export_of_such_a_base_is_run_by_transformers(tmp_path, name, stated):
  tower = TOWERS[name]
  base = make_base(tmp_path / "base", tower, stated)
  config = huggingface.read_config(base)
  assert config.patches == tower[3]
  out = tmp_path / "out"
  huggingface.write_model(out, config, huggingface.read_params(base, config), base)
  assert read_stated(out) == tower[3]
  processor = transformers.AutoProcessor.from_pretrained(out, backend="pil")
  image = PIL.Image.new("RGB", (50, 20), (200, 30, 30))
  batch = processor(images=image, text="<image>\nWhat?", return_tensors="pt")
  assert int((batch["input_ids"] == config.image_token).sum()) == tower[3]
  with torch.no_grad():
    logits = load_torch(out)(**batch).logits
  assert np.isfinite(logits.numpy()).all()


def test_the_number_of_the_tower_itself_is_not_told(tmp_path):
  base = make_base(tmp_path / "base", TOWERS["clip of 25"], 25)
  with small_run.open_run(tmp_path / "work", base, **RUN) as current:
    COMMANDS["check"](current)
  assert "image_seq_length" not in (tmp_path / "work/log.txt").read_text()
  assert "base" not in json.loads((tmp_path / "work/pool_summary.json").read_text())
