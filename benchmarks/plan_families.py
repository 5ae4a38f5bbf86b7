"""Do published sizes of the families of tiles fit? Steps, compiled for TPUs and GPUs.

    JAX_PLATFORMS=cpu python -m benchmarks.plan_families [--cases=internvl,llava_next] \
      [--jobs=score,lora,full] [--topology=v5e-8] [--set=tune.accumulate=6]

Needs the package libtpu (`pip install '.[tpu]'`), no TPU; for GPUs, such as h100-8,
jax's CUDA plug-in (`pip install '.[cuda]'`), no GPU. The pool is drawn by
benchmarks/tiled_pools.py, and a fifth of it is trained on; packed rows have 8,192
tokens. Training has the settings of the shipped configs of LLaVA-1.5 7B, which `--set`
changes.
"""

import argparse
import importlib
from collections.abc import Callable

import numpy as np
import transformers

from benchmarks import plan_topologies, tiled_pools
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface.families import read_decoder, read_tower
from mllm_selector_jax.models.huggingface.model_families import find_family
from mllm_selector_jax.pipeline.score_pool import make_options
from mllm_selector_jax.planning import jobs, topology

ROW_LENGTH, BATCH_ROWS = 8192, 4
# The shipped config of each job.
CONFIGS = {"score": "llava15_7b", "lora": "llava15_7b_lora", "full": "llava15_7b"}
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


CASES: dict[str, Callable[[], transformers.PretrainedConfig]] = {
  "internvl": _internvl,
  "llava_next": _llava_next,
  "llava_onevision": _llava_onevision,
}


def read_config(hf_config: transformers.PretrainedConfig) -> MllmConfig:
  """The config of the whole model, in bfloat16."""
  return MllmConfig(
    read_tower(hf_config.vision_config),
    read_decoder(hf_config.text_config, tied=False),
    **find_family(hf_config).read(hf_config),
    dtype="bfloat16",
    remat="full",
  )


def run_case(name: str, job: str, arguments: argparse.Namespace) -> None:
  """Prints what a step of scoring or training takes on the slice."""
  module = importlib.import_module(f"mllm_selector_jax.configs.{CONFIGS[job]}")
  cfg = module.get_config()
  cfg.score.row_length, cfg.score.batch_rows = ROW_LENGTH, BATCH_ROWS
  cfg.tune.row_length = ROW_LENGTH
  cfg = plan_topologies.read_settings(cfg, arguments.set)
  form = tiled_pools.FORMS[name]
  pool = tiled_pools.describe(tiled_pools.draw_pool(arguments.rows), form)
  pool.ok = np.isin(
    np.arange(len(pool.tokens)), tiled_pools.keep_rows(pool, ROW_LENGTH)
  )
  print(f"--- {name}, {job} {arguments.set}: {CASES[name].__doc__}", flush=True)
  is_training = job != "score"
  steps = jobs.describe_steps(
    read_config(CASES[name]()),
    {"tune": cfg.tune} if is_training else {},
    {"tune": int(pool.ok.sum()) // 5},
    None if is_training else make_options(cfg),
    pool,
    topology.describe(arguments.topology),
    cfg.mesh.to_dict(),
  )
  for text in steps:
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
