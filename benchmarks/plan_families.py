"""Do published sizes of the families fit? Steps, compiled for TPUs and GPUs.

    JAX_PLATFORMS=cpu python -m benchmarks.plan_families [--cases=internvl,llava_next] \
      [--jobs=score,lora,full] [--topology=v5e-8] [--set=tune.accumulate=6]

Needs the package libtpu (`pip install '.[tpu]'`), no TPU; for GPUs, such as h100-8,
jax's CUDA plug-in (`pip install '.[cuda12]'`), no GPU. The pool is drawn by
benchmarks/tiled_pools.py, and a fifth of it is trained on. Steps have the settings of
shipped configs, which `--set` changes: Qwen's of their own, and the families of tiles
those of LLaVA-1.5 7B, but with packed rows of 8,192 tokens.
"""

import argparse
import dataclasses
import importlib
from collections.abc import Callable

import numpy as np
import transformers

from benchmarks import plan_topologies, tiled_pools
from mllm_selector_jax.data.images.image_forms import native_form
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface.model_families import find_family
from mllm_selector_jax.pipeline.score_pool import make_options
from mllm_selector_jax.planning import run_steps, topology

ROW_LENGTH, BATCH_ROWS = 8192, 4
# The shipped config of each job, and of the cases that have their own.
CONFIGS = {"score": "llava15_7b", "lora": "llava15_7b_lora", "full": "llava15_7b"}
QWEN_CONFIGS = {
  "qwen2_5_vl": {
    "score": "qwen25_vl_7b",
    "lora": "qwen25_vl_7b_lora",
    "full": "qwen25_vl_7b",
  },
  "qwen3_vl": {"score": "qwen3_vl_4b_lora", "lora": "qwen3_vl_4b_lora"},
}
QWEN3_8B = {
  "model_type": "qwen3",
  "vocab_size": 151936,
  "hidden_size": 4096,
  "intermediate_size": 12288,
  "num_hidden_layers": 36,
  "num_attention_heads": 32,
  "num_key_value_heads": 8,
  "head_dim": 128,
}


def _internvl() -> transformers.PretrainedConfig:
  """InternVL3.5-8B."""
  return transformers.InternVLConfig(
    vision_config={"attention_bias": True},
    text_config=QWEN3_8B,
    image_token_id=151671,
  )


def _llava_next() -> transformers.PretrainedConfig:
  """LLaVA-v1.6-mistral-7B."""
  return transformers.LlavaNextConfig(
    text_config={
      "model_type": "mistral",
      "vocab_size": 32064,
      "intermediate_size": 14336,
      "num_key_value_heads": 8,
      "sliding_window": None,
    }
  )


def _llava_onevision() -> transformers.PretrainedConfig:
  """LLaVA-OneVision-Qwen2-7B."""
  return transformers.LlavaOnevisionConfig(
    text_config={
      "model_type": "qwen2",
      "vocab_size": 152128,
      "hidden_size": 3584,
      "intermediate_size": 18944,
      "num_hidden_layers": 28,
      "num_attention_heads": 28,
      "num_key_value_heads": 4,
    }
  )


def _qwen2_5_vl() -> transformers.PretrainedConfig:
  """Qwen2.5-VL-7B."""
  return transformers.Qwen2_5_VLConfig(
    text_config={
      "vocab_size": 152064,
      "hidden_size": 3584,
      "intermediate_size": 18944,
      "num_hidden_layers": 28,
      "num_attention_heads": 28,
      "num_key_value_heads": 4,
      "rope_parameters": {"rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    vision_config={
      "depth": 32,
      "hidden_size": 1280,
      "intermediate_size": 3420,
      "out_hidden_size": 3584,
    },
    image_token_id=151655,
    tie_word_embeddings=False,
  )


def _qwen3_vl() -> transformers.PretrainedConfig:
  """Qwen3-VL-4B."""
  return transformers.Qwen3VLConfig(
    text_config={
      "vocab_size": 151936,
      "hidden_size": 2560,
      "intermediate_size": 9728,
      "num_hidden_layers": 36,
      "num_attention_heads": 32,
      "num_key_value_heads": 8,
      "head_dim": 128,
      "rope_parameters": {"rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    },
    vision_config={
      "depth": 24,
      "hidden_size": 1024,
      "intermediate_size": 4096,
      "num_heads": 16,
      "out_hidden_size": 2560,
      "deepstack_visual_indexes": [5, 11, 17],
    },
    image_token_id=151655,
    tie_word_embeddings=True,
  )


CASES: dict[str, Callable[[], transformers.PretrainedConfig]] = {
  "internvl": _internvl,
  "llava_next": _llava_next,
  "llava_onevision": _llava_onevision,
  "qwen2_5_vl": _qwen2_5_vl,
  "qwen3_vl": _qwen3_vl,
}


def read_config(hf_config: transformers.PretrainedConfig) -> MllmConfig:
  """The config of the whole model, in bfloat16."""
  family = find_family(hf_config)
  tied = hf_config.model_type == "qwen3_vl" and hf_config.tie_word_embeddings
  return MllmConfig(
    family.read_tower(hf_config.vision_config),
    family.read_decoder(hf_config.text_config, tied=tied),
    **family.read(hf_config),
    dtype="bfloat16",
    remat="full",
  )


def run_case(name: str, job: str, arguments: argparse.Namespace) -> None:
  """Prints what a step of scoring or training takes on the slice."""
  shipped = QWEN_CONFIGS.get(name, CONFIGS)[job]
  cfg = importlib.import_module(f"mllm_selector_jax.configs.{shipped}").get_config()
  if name not in QWEN_CONFIGS:
    cfg.score.row_length, cfg.score.batch_rows = ROW_LENGTH, BATCH_ROWS
    cfg.tune.row_length = ROW_LENGTH
  cfg = plan_topologies.read_settings(cfg, arguments.set)
  is_training = job != "score"
  form = tiled_pools.FORMS[name]
  if cfg.model.resize_pixels is not None:
    options = native_form.limit_pixels(form.options, cfg.model.resize_pixels)
    form = dataclasses.replace(form, options=options)
  pool = tiled_pools.describe(tiled_pools.draw_pool(arguments.rows), form)
  longest = cfg.tune.row_length if is_training else cfg.score.row_length
  kept = tiled_pools.keep_rows(pool, longest)
  pool.ok = np.isin(np.arange(len(pool.tokens)), kept)
  print(
    f"--- {name}, {job} {arguments.set}: {CASES[name].__doc__} --config={shipped},"
    f" {len(kept):,} of {len(pool.ok):,} rows are short enough, with"
    f" {pool.tokens[kept].mean():.0f} tokens and {pool.tiles[kept].mean():.0f} tiles",
    flush=True,
  )
  steps = run_steps.RunSteps(
    read_config(CASES[name]()),
    {"tune": cfg.tune} if is_training else {},
    {"tune": int(pool.ok.sum()) // 5},
    None if is_training else make_options(cfg),
    pool,
  )
  devices = topology.describe(arguments.topology)
  for text in run_steps.describe_steps(steps, devices, cfg.mesh.to_dict()):
    print(text, flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--cases", default=",".join(CASES))
  parser.add_argument("--jobs", default="score")
  parser.add_argument("--topology", default="v5e-8")
  parser.add_argument("--set", default="", help="changes of the config")
  parser.add_argument("--rows", type=int, default=20_000, help="of the pool")
  arguments = parser.parse_args()
  for name in arguments.cases.split(","):
    for job in arguments.jobs.split(","):
      run_case(name, job, arguments)


if __name__ == "__main__":
  main()
