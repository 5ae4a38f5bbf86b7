"""A LoRA adapter as a directory that peft loads onto the base in transformers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping, tensor_names
from mllm_selector_jax.models.huggingface.source import write_json
from mllm_selector_jax.models.huggingface.writer import write_tensors
from mllm_selector_jax.runs import peers, row_shares
from mllm_selector_jax.types import Params

# The tower's layers have some of the same names, so these are not a plain list.
TARGETS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
# By `MllmConfig.names`, where it is not LLaVA's.
PROJECTORS = {"qwen2_vl": ("visual.merger",), "qwen3_vl": ("visual.merger",)}
MATRICES = {"lora_a": "lora_A", "lora_b": "lora_B"}


def write_adapter(
  folder: str | os.PathLike, config: MllmConfig, params: Params, base: str
) -> None:
  """Writes adapter_config.json and adapter_model.safetensors.

  The projector, which is tuned with the adapter, is in it whole, under
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
  description = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base,
    "r": config.lora.rank,
    "lora_alpha": config.lora.alpha,
    "lora_dropout": 0.0,
    "bias": "none",
    "target_modules": TARGETS,
    "modules_to_save": list_projectors(config),
    "inference_mode": True,
  }
  write_json(folder / "adapter_config.json", description)
  write_tensors(folder / "adapter_model.safetensors", tensors)


def list_projectors(config: MllmConfig) -> list[str]:
  """The ends of the names of the modules that project features of images."""
  names = PROJECTORS.get(config.names, ("multi_modal_projector",))
  mergers = range(len(config.deepstack))
  return [*names, *(f"visual.deepstack_merger_list.{number}" for number in mergers)]


def list_tensors(
  config: MllmConfig, params: Params
) -> Iterator[tuple[str, np.ndarray]]:
  """Every tensor of the adapter and of the projector by peft's name."""
  for name, adapter in params["adapter"]["layers"].items():
    stem = _module_name(tensor_names.NAMES[f"decoder/layers/{name}"])
    for ours, theirs in MATRICES.items():
      for layer, matrix in enumerate(row_shares.fetch(adapter[ours])):
        key = f"{stem.replace('*', str(layer))}.{theirs}.weight"
        yield key, np.ascontiguousarray(matrix.T, np.float32)
  for leaf in mapping.list_leaves(config):
    if leaf.path.startswith("projector/"):
      array: Any = params
      for key in leaf.path.split("/"):
        array = array[key]
      array = row_shares.fetch(array).astype(np.float32)
      for name, part in zip(
        leaf.names, array if leaf.stacked else [array], strict=True
      ):
        yield _module_name(name), np.ascontiguousarray(leaf.to_theirs(part))


def _module_name(name: str) -> str:
  """A tensor's or module's path in a model of transformers that peft has wrapped."""
  name = name.replace(tensor_names.DECODER, "language_model.")
  return "base_model.model.model." + name
