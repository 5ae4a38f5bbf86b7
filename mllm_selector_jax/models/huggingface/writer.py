"""Model directories that transformers 4 and 5 both load, bit for bit the same."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.numpy

from mllm_selector_jax import types
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping
from mllm_selector_jax.models.huggingface.config import load_hf_config, read_config
from mllm_selector_jax.models.huggingface.processor import load_image_processor
from mllm_selector_jax.models.huggingface.source import find_model, read_json

# Carried over byte by byte where the source has them.
CARRIED = (
  "tokenizer.json",
  "tokenizer.model",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "chat_template.jinja",
  "chat_template.json",
  "generation_config.json",
  "LICENSE",
)
# Depend on the machine or name code that is not carried over.
DROPPED = ("_name_or_path", "transformers_version", "auto_map", "_commit_hash")


def _write_json(path: Path, value: dict[str, Any]) -> None:
  part = path.with_name(path.name + ".part")
  part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")
  os.replace(part, path)


def _without_dropped(value: dict[str, Any]) -> dict[str, Any]:
  return {
    key: _without_dropped(item) if isinstance(item, dict) else item
    for key, item in value.items()
    if key not in DROPPED
  }


def _describe_model(hf_config: Any) -> dict[str, Any]:
  """config.json with the field names of transformers 4 and 5 side by side."""
  value = _without_dropped(hf_config.to_dict())
  text = value["text_config"]
  rope = text.get("rope_parameters") or {}
  text["rope_theta"] = rope.get("rope_theta", 10000.0)
  tied = bool(value.get("tie_word_embeddings"))
  for part in (value, text, value["vision_config"]):
    part["dtype"] = part["torch_dtype"] = "float32"
  value["tie_word_embeddings"] = text["tie_word_embeddings"] = tied
  value["architectures"] = ["LlavaForConditionalGeneration"]
  return value


def _describe_image_processor(processor: Any) -> dict[str, Any]:
  """preprocessor_config.json under the name that both versions know."""
  value = _without_dropped(processor.to_dict())
  value.pop("processor_class", None)
  kind = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
  return {
    **{key: item for key, item in value.items() if item is not None},
    "image_processor_type": kind,
    "processor_class": "LlavaProcessor",
  }


def _describe_processor(hf_config: Any) -> dict[str, Any]:
  return {
    "processor_class": "LlavaProcessor",
    "image_token": "<image>",
    # The class token: without it the processor counts an image one token short.
    "num_additional_image_tokens": 1,
    "patch_size": hf_config.vision_config.patch_size,
    "vision_feature_select_strategy": hf_config.vision_feature_select_strategy,
  }


def _describe_generation(hf_config: Any) -> dict[str, Any]:
  text = hf_config.text_config
  ids = {
    key: getattr(text, key, None)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id")
  }
  return {key: value for key, value in ids.items() if value is not None}


def _write_weights(path: Path, config: MllmConfig, params: types.Params) -> None:
  part = path.with_name(path.name + ".part")
  safetensors.numpy.save_file(
    dict(mapping.to_tensors(config, params)), str(part), metadata={"format": "pt"}
  )
  part.chmod(0o644)  # safetensors makes files that only their owner reads
  os.replace(part, path)


def write_model(
  folder: str | os.PathLike,
  config: MllmConfig,
  params: types.Params,
  source: str | os.PathLike,
) -> None:
  """Writes a model directory; equal input gives equal bytes.

  Each file appears whole or not at all; the caller moves the directory.

  Args:
    folder: made if missing.
    config: the model's shapes.
    params: its parameters, written as float32.
    source: the base directory, whose config, tokenizer, image processor and
      chat template are carried over.
  """
  folder, source = Path(folder), find_model(source)
  folder.mkdir(parents=True, exist_ok=True)
  hf_config = load_hf_config(source)
  _write_json(folder / "generation_config.json", _describe_generation(hf_config))
  for name in CARRIED:
    if not (source / name).is_file():
      continue
    if name.endswith(".json") and "auto_map" in (value := read_json(source / name)):
      _write_json(folder / name, _without_dropped(value))
    elif (source / name).resolve() != (folder / name).resolve():
      shutil.copyfile(source / name, folder / name)
  described = _describe_image_processor(load_image_processor(source))
  processor = _describe_processor(hf_config)
  if (source / "processor_config.json").is_file():
    old = read_json(source / "processor_config.json")
    processor["image_token"] = old.get("image_token") or processor["image_token"]
  _write_json(folder / "config.json", _describe_model(hf_config))
  _write_json(folder / "preprocessor_config.json", described)
  _write_json(folder / "processor_config.json", processor)
  _write_weights(folder / "model.safetensors", config, params)


def write_fresh(
  folder: str | os.PathLike,
  hf_config: Any,
  tokenizer: Any,
  image_processor: Any,
  seed: int,
) -> MllmConfig:
  """Makes a model directory from nothing, its weights drawn from the seed.

  Args:
    folder: made if missing.
    hf_config: a transformers LlavaConfig.
    tokenizer: a transformers tokenizer that holds `<image>`; its chat template
      is written with it.
    image_processor: a transformers image processor, such as LlavaImageProcessor
      with do_pad.
    seed: of the weights.

  Returns:
    The configuration, as `read_config` reads it back.

  Raises:
    InputError: the parts do not make a model that this package runs.
  """
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tokenizer.save_pretrained(str(folder))
  _write_json(folder / "config.json", _describe_model(hf_config))
  _write_json(
    folder / "preprocessor_config.json", _describe_image_processor(image_processor)
  )
  _write_json(folder / "processor_config.json", _describe_processor(hf_config))
  _write_json(folder / "generation_config.json", _describe_generation(hf_config))
  config = read_config(folder)
  _write_weights(folder / "model.safetensors", config, mllm.init(config, seed))
  return config
