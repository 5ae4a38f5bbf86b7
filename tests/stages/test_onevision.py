"""A base of LLaVA-OneVision's kind through every stage: Qwen2, SigLIP, one tile."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import transformers

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.stages import COMMANDS
from tests import small_run
from tests.models import tiny

SPECIAL = (*tiny.SPECIAL, "<|im_start|>", "<|im_end|>")
OVERRIDES = {
  "model.conversation": "chatml",
  "model.max_length": 256,
  "pool.demo.rows": 48,
  "pool.demo.questions": 1,
  "seed.rows": "10",
  "seed.row_length": 192,
  "seed.batch": 5,
  "seed.lora.rank": 4,
  "seed.projector_learning_rate": 1e-4,
  "score.row_length": 192,
  "select.control": False,
  "tune.batch": 5,
  "tune.row_length": 192,
  "evaluate.max_new_tokens": 2,
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("onevision")
  base = tiny.make_base(
    folder / "base",
    decoder="qwen2",
    tower="siglip_vision_model",
    tie_word_embeddings=True,
    vision_hidden_act="gelu_pytorch_tanh",
    llava_vision_feature_layer=-1,
    num_hidden_layers=1,
    vision_num_hidden_layers=1,
  )
  tiny.make_tokenizer(300, SPECIAL).save_pretrained(base)
  with small_run.open_run(folder / "work", base, **OVERRIDES) as current:
    COMMANDS["run"](current)
  return folder / "work"


def test_every_stage_is_done_and_no_row_is_lost(workdir):
  pool = pq.read_table(workdir / "pool.parquet").to_pydict()
  ok = [row for row, s in zip(pool["row"], pool["status"], strict=True) if s == "ok"]
  scores = [pq.read_table(p) for p in sorted((workdir / "scores").glob("*.parquet"))]
  scored = [row for table in scores for row in table["row"].to_pylist()]
  assert scored == ok and len(ok) > 30
  assert all(np.isfinite(table["loss"].to_numpy()).all() for table in scores)
  assert json.loads((workdir / "arms/main/evaluation/results.json").read_text())
  assert "<html" in (workdir / "report.html").read_text()


def test_what_comes_out_is_of_the_base_s_kind(workdir):
  for model in ("seed/hf", "arms/main/tuned/hf"):
    config = huggingface.read_config(workdir / model)
    assert (config.patches, config.select, config.feature_layer) == (16, "full", -1)
    assert config.decoder.qkv_bias and config.decoder.tied
    tokenizer = transformers.AutoTokenizer.from_pretrained(workdir / model)
    asked = tokenizer.apply_chat_template(
      [{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True
    )
    assert "<|im_start|>user\nWhy?<|im_end|>" in asked
    assert asked.endswith("<|im_start|>assistant\n")


def test_a_stage_with_lora_leaves_an_adapter_beside_the_merged_model(workdir):
  adapter = workdir / "seed/adapter"
  assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 4
  assert (adapter / "adapter_model.safetensors").exists()
  assert not (workdir / "arms/main/tuned/adapter").exists()
