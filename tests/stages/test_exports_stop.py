"""What the stages leave, asked by transformers alone, beside what `evaluate` wrote."""

import json

import PIL.Image
import pytest
import torch

from mllm_selector_jax.stages import COMMANDS
from tests import small_run
from tests.models.huggingface import bases
from tests.models.huggingface.test_stops import ask_transformers, make_base

torch.set_num_threads(1)
# As many looks at few rows as a model without any training needs to learn to stop.
OVERRIDES = {
  "model.conversation": "chatml",
  "model.max_length": 256,
  "pool.demo.rows": 48,
  "pool.demo.questions": 1,
  "seed.rows": "100%",
  "seed.row_length": 192,
  "seed.batch": 8,
  "seed.epochs": 12,
  "seed.learning_rate": 1e-2,
  "score.row_length": 192,
  "select.budget": "100%",
  "select.bound": "none",
  "select.control": False,
  "tune.batch": 8,
  "tune.row_length": 192,
  "tune.epochs": 32,
  "tune.learning_rate": 5e-3,
  "tune.lora.rank": 16,
  "tune.projector_learning_rate": 1e-2,
  "evaluate.max_new_tokens": 10,
}


def widen_head(tensors):
  """LoRA leaves the head as it is; a fresh one is too small to tell tokens apart."""
  tensors["language_model.lm_head.weight"] *= 30


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("stop")
  base = make_base(folder / "base", decoder="qwen2", num_hidden_layers=1)
  bases.edit_tensors(base, widen_head)
  with small_run.open_run(folder / "work", base, **OVERRIDES) as current:
    COMMANDS["run"](current)
  return folder / "work"


def read_lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_merged_export_answers_as_the_evaluation_did(workdir):
  """ChatML's end is not the base's: before, answers went on to the limit."""
  asked = read_lines(workdir / "demo_pool/evaluation/eval.jsonl")
  images = {line["id"]: line.get("image") for line in asked}
  lengths = []
  for line in read_lines(workdir / "arms/main/evaluation/predictions.jsonl"):
    image = images[line["id"]]
    if image is not None:
      image = PIL.Image.open(workdir / "demo_pool/evaluation/images" / image)
    folder = workdir / "arms/main/tuned/hf"
    ids, answer = ask_transformers(folder, image, line["question"])
    assert answer == line["prediction"]
    lengths.append(len(ids) if ids[-1] == 6 else None)
  assert len(lengths) > 4 and None not in lengths and max(lengths) > 1


def test_the_seed_model_stops(workdir):
  stored = json.loads((workdir / "seed/hf/generation_config.json").read_text())
  assert stored["eos_token_id"] == [6, 2]
  ids, answer = ask_transformers(workdir / "seed/hf", None, "what colour?")
  assert ids[-1] == 6 and answer
