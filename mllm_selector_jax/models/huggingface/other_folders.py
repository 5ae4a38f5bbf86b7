"""Folders that people have and that are no base: each is named for what it is."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors

from mllm_selector_jax.models.huggingface.decoder_families import DECODERS
from mllm_selector_jax.models.huggingface.foreign_links import refuse_foreign_links
from mllm_selector_jax.models.huggingface.model_families import FAMILIES
from mllm_selector_jax.models.huggingface.other_models import OTHERS
from mllm_selector_jax.models.huggingface.source import read_json
from mllm_selector_jax.models.huggingface.tower_families import TOWERS
from mllm_selector_jax.models.huggingface.weights import DTYPES, FLOAT_WEIGHTS
from mllm_selector_jax.types import InputError

MERGE = "python -m mllm_selector_jax.models.huggingface.merge_adapter"
# Of config.json: transformers', compressed-tensors' and MLX's.
_QUANTISATIONS = ("quantization_config", "compression_config", "quantization")
_LAYERS = re.compile("num_(hidden|kv_shared)_layers|num_layers|n_layers|depth")
_SIZES = re.compile(r"\w+_(size|dim)(_per_layer_input)?")
_COUNTS = re.compile(
  "num_(hidden|kv_shared)_layers|head_dim"
  "|(hidden|intermediate|vocab)_size(_per_layer_input)?"
)
MOST_LAYERS = 1000  # the deepest published model has 126
MOST_SIZE = 1 << 24  # a vocabulary, the largest of them, has up to 262,208
_ADAPTER = "adapter_config.json"
_TOWER_TYPES = ("clip", "siglip", *TOWERS)
_SEES = re.compile("vision|visual|image|img_")


def refuse_others(folder: Path) -> None:
  """Refuses a folder whose files show that it is something else than a model.

  A folder with links to what is no model's is refused, too; see `foreign_links`.

  Raises:
    InputError: what it is, and what to do with it.
  """
  refuse_foreign_links(folder)
  path = folder / "config.json"
  config = read_json(path) if path.is_file() else {}
  for look in (_find_adapter, _find_gguf, _find_quantised, _find_inside, _find_huge):
    if (found := look(folder, config)) is not None:
      raise InputError(f"{folder} {found}")


def _find_huge(folder: Path, config: dict[str, Any]) -> str | None:
  """Names a number of layers or a size that no model has, before arrays are made."""
  for part, fields in ((None, config), *config.items()):
    for key, count in fields.items() if isinstance(fields, dict) else ():
      for names, most in ((_LAYERS, MOST_LAYERS), (_SIZES, MOST_SIZE)):
        known = names.fullmatch(key) and isinstance(count, int | float)
        where = f"{part}.{key}" if part else key
        if known and not count <= most:
          return f"has {where} {count:,} in config.json; at most {most:,} are run."
        if known and _COUNTS.fullmatch(key) and count < 0:
          return f"has {where} {count:,} in config.json, where a number from 0 belongs."
  return None


def describe_type(folder: Path, config: dict[str, Any]) -> str:
  """What a model is that is of no supported family, and what is, as a message."""
  kind, path = config.get("model_type"), folder / "config.json"
  supported = (
    f"supported are {', '.join(map(repr, FAMILIES))} (the Hugging Face form, such as"
    " llava-hf/llava-1.5-7b-hf), LLaVA's own checkpoints (with mm_vision_tower) and"
    f" InternVL's (internvl_chat), with {', '.join(DECODERS)} decoders and CLIP,"
    " SigLIP, InternViT, DINOv2 or Pixtral towers; Qwen-VL and GLM-4.1V have decoders"
    " and towers of their own"
  )
  start = f"{path}: model_type is {kind!r}"
  if kind in OTHERS:
    return f"{start}, {OTHERS[kind]} (docs/families.md)."
  if kind in _TOWER_TYPES:
    return (
      f"{start}, a vision tower alone. Make a base of it and a decoder:"
      f" mllm-selector assemble --decoder=lmsys/vicuna-7b-v1.5 --vision={folder}"
      " --out=DIR"
    )
  sees = any(_SEES.search(key) for key in config)
  if kind in DECODERS and not sees:
    return (
      f"{start}, a language model without a vision tower. Make a base of both:"
      f" mllm-selector assemble --decoder={folder}"
      " --vision=openai/clip-vit-large-patch14-336 --out=DIR"
    )
  if kind and sees:
    return (
      f"{start}, a vision-language family that is not supported; {supported}"
      " (docs/families.md)."
    )
  return (
    f"{start}; {supported}. A decoder and a vision tower become one by"
    " `mllm-selector assemble`."
  )


def _find_adapter(folder: Path, config: dict[str, Any]) -> str | None:
  extra = sorted(path.name for path in folder.glob("non_lora_trainables.*"))
  if not (folder / _ADAPTER).is_file():
    if not extra:
      return None
    return (
      f"has {extra[0]}, a part of what LLaVA's LoRA training writes, but no"
      f" {_ADAPTER}: fetch the whole folder, and merge it: {MERGE} {folder} OUT"
    )
  if _has_weights(folder) and not any(folder.glob("adapter_model.*")):
    return None  # what a merge left behind
  base = read_json(folder / _ADAPTER).get("base_model_name_or_path") or "another model"
  what = "an adapter for peft"
  if extra or "mm_vision_tower" in config:
    what = "what LLaVA's LoRA training writes"
  return (
    f"is {what} ({_ADAPTER}), to be added to {base}, not a whole model. Merge it with"
    f" its base, and give what that makes: {MERGE} {folder} OUT"
  )


def _find_gguf(folder: Path, config: dict[str, Any]) -> str | None:
  names = sorted(path.name for path in folder.glob("*.gguf"))
  if not names or _has_weights(folder):
    return None
  return (
    f"has weights for llama.cpp ({', '.join(names[:3])}), most often quantised."
    f" {FLOAT_WEIGHTS}"
  )


def _find_quantised(folder: Path, config: dict[str, Any]) -> str | None:
  settings = _find_quantisation(config)
  if settings is None:
    return None
  types = set(_list_types(folder))
  if types and types <= set(DTYPES):  # dequantised, the note of it left behind
    return None
  return f"has quantised weights ({_describe_quantisation(settings)}). {FLOAT_WEIGHTS}"


def _find_quantisation(config: dict[str, Any]) -> dict[str, Any] | None:
  """How config.json says that the weights, or a part's, are quantised."""
  parts = [config, config.get("text_config"), config.get("vision_config")]
  for part in parts:
    if not isinstance(part, dict):
      continue
    for key in _QUANTISATIONS:
      if isinstance(part.get(key), dict) and part[key]:
        return part[key]
  return None


def _describe_quantisation(settings: dict[str, Any]) -> str:
  by_flag = {"load_in_4bit": 4, "load_in_8bit": 8}
  flagged = next((bits for flag, bits in by_flag.items() if settings.get(flag)), None)
  method = settings.get("quant_method") or ("bitsandbytes" if flagged else "MLX")
  bits = settings.get("bits") or flagged
  return f"{method}, {bits} bits" if bits else str(method)


def _list_types(folder: Path) -> Iterator[str]:
  """The types of a folder's tensors; indices are no weights."""
  for path in folder.glob("*.safetensors"):
    try:
      with safetensors.safe_open(str(path), framework="numpy") as handle:
        types = [handle.get_slice(key).get_dtype() for key in handle.keys()]
    except (OSError, safetensors.SafetensorError):
      continue  # named when the weights are read
    yield from (kind for kind in types if kind != "I64")


def _find_inside(folder: Path, config: dict[str, Any]) -> str | None:
  """A folder that holds the model's; none where it has a config.json of its own."""
  if config:
    return None
  inside = [folder / "hf", *sorted(folder.glob("snapshots/*"))]
  inside = [path for path in inside if (path / "config.json").is_file()]
  if not inside:
    return None
  return f"holds a model in a folder of its own: give {inside[-1]}."


def _has_weights(folder: Path) -> bool:
  return any(folder.glob("model*.safetensors")) or any(
    folder.glob("pytorch_model*.bin")
  )
