"""A LoRA adapter as a directory that peft loads onto the base in transformers."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax.models import lora
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping, tensor_names
from mllm_selector_jax.models.huggingface.source import write_json
from mllm_selector_jax.models.huggingface.writer import write_tensors
from mllm_selector_jax.runs import peers, row_shares
from mllm_selector_jax.types import Params

# The tower's layers have some of the same names, so these are not a plain list.
TARGETS = r".*{}.*\.(q|k|v|o|qkv|gate|up|gate_up|down)_proj"
LINEAR_TARGETS = r".*{}.*\.linear_attn\.(in_proj_(qkv|z|b|a)|out_proj)"
INPUT_TARGETS = r".*{}.*\.per_layer_(input_gate|projection)"
# By `MllmConfig.names`, where it is not LLaVA's.
PROJECTORS = {
  "qwen2_vl": ("visual.merger",),
  "qwen3_vl": ("visual.merger",),
  "qwen3_5": ("visual.merger",),
  "glm4v": ("visual.merger", "visual.downsample"),
  "idefics3": ("connector",),
  "gemma4": ("embed_vision",),
}
PREFIX = "base_model.model.model."  # of a model that peft has wrapped


def write_adapter(
  folder: str | os.PathLike, config: MllmConfig, params: Params, base: str
) -> None:
  """Writes adapter_config.json and adapter_model.safetensors.

  A projector without adapters, which is tuned beside them, is in it whole, under
  `modules_to_save`. So is a newline vector; peft loads it by its name, though it
  belongs to no module. In a run of several processes all must call it.

  Args:
    folder: made if missing.
    config: the model's, with its `lora`.
    params: its parameters, written as float32; of the base's nothing is.
    base: the model that the adapter is of: a directory or a hub name.
  """
  assert config.lora is not None
  folder, tensors = Path(folder), dict(list_tensors(config, params))
  if not peers.is_first_process():
    return
  folder.mkdir(parents=True, exist_ok=True)
  whole = "projector" not in config.lora.parts
  description = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base,
    "r": config.lora.rank,
    "lora_alpha": config.lora.alpha,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": find_targets(config, params["adapter"]),
    "modules_to_save": list_projectors(config) if whole else None,
    "inference_mode": True,
  }
  write_json(folder / "adapter_config.json", description)
  write_tensors(folder / "adapter_model.safetensors", tensors)


def find_targets(config: MllmConfig, adapter: Params) -> str:
  """The regular expression of the names of the modules that have adapters."""
  targets = []
  for part in lora.list_adapted(adapter):
    if part == "decoder":
      patterns = [TARGETS] + [LINEAR_TARGETS] * (config.decoder.linear is not None)
      patterns += [INPUT_TARGETS] * (config.decoder.layer_inputs is not None)
      module = tensor_names.decoder_module(config.names)
      targets += [pattern.format(module) for pattern in patterns]
      continue
    for leaf, _ in _list_adapters(config, part, lora.pick(adapter, part)):
      pattern = re.escape(_name_module(config, leaf.names[0]))
      if leaf.stacked:  # the name is that of the first layer
        pattern = pattern.replace(r"\.0\.", r"\.\d+\.", 1)
      targets.append(f".*{pattern}")
  return "|".join(targets)


def list_projectors(config: MllmConfig) -> list[str]:
  """The ends of the names of the modules that project features of images."""
  names = PROJECTORS.get(config.names, ("multi_modal_projector",))
  mergers = range(len(config.deepstack))
  return [*names, *(f"visual.deepstack_merger_list.{number}" for number in mergers)]


def list_tensors(
  config: MllmConfig, params: Params
) -> Iterator[tuple[str, np.ndarray]]:
  """Every tensor of the adapter and of a whole projector by peft's name."""
  assert config.lora is not None
  for part in lora.list_adapted(params["adapter"]):
    adapters = lora.pick(params["adapter"], part)
    for leaf, adapter in _list_adapters(config, part, adapters):
      down, up = (row_shares.fetch(adapter[name]) for name in lora.MATRICES)
      if not leaf.stacked:
        down, up = down[None], up[None]
      for layer, name in enumerate(leaf.names):
        stem = PREFIX + _name_module(config, name)
        yield f"{stem}.lora_A.weight", _to_float(leaf.to_theirs(down[layer]))
        yield f"{stem}.lora_B.weight", _to_float(up[layer].T)
  if "projector" in config.lora.parts:
    return
  for leaf in mapping.list_leaves(config):
    if leaf.path.startswith("projector/"):
      array = row_shares.fetch(_find(params, leaf.path)).astype(np.float32)
      for name, part in zip(
        leaf.names, array if leaf.stacked else [array], strict=True
      ):
        yield PREFIX + name, np.ascontiguousarray(leaf.to_theirs(part))


def _list_adapters(
  config: MllmConfig, part: str, adapters: Params
) -> Iterator[tuple[mapping.Leaf, Params]]:
  """The kernels of a part that have adapters, and these; of shared ones the first."""
  leaves = {leaf.path: leaf for leaf in mapping.list_leaves(config)}

  def walk(path: str, tree: Params) -> Iterator[tuple[mapping.Leaf, Params]]:
    if "lora_a" in tree:
      yield leaves[f"{path}/kernel"], tree
      return
    for name, inner in tree.items():
      layer = lora.SHARED.get(name, (name,))[0]
      yield from walk(f"{path}/{layer}", inner)

  return walk(part, adapters)


def _name_module(config: MllmConfig, kernel: str) -> str:
  """The name of the module of a kernel with this canonical name."""
  name = kernel.removesuffix(".weight")
  return tensor_names.module_name(
    name, config.names, config.decoder.names, config.vision.names
  )


def _find(params: Params, path: str) -> Any:
  found: Any = params
  for key in path.split("/"):
    found = found[key]
  return found


def _to_float(matrix: np.ndarray) -> np.ndarray:
  return np.ascontiguousarray(matrix, np.float32)
