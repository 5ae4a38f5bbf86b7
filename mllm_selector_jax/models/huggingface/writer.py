"""Model directories that transformers 4 and 5 both load, bit for bit the same."""

import itertools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.numpy

from mllm_selector_jax import storage, types
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping
from mllm_selector_jax.models.huggingface.carried_tensors import (
  list_carried,
  name_carried,
  read_carried,
)
from mllm_selector_jax.models.huggingface.model_config import read_config
from mllm_selector_jax.models.huggingface.model_families import (
  count_image_tokens,
  find_family,
)
from mllm_selector_jax.models.huggingface.model_parts import Parts, find_parts
from mllm_selector_jax.models.huggingface.processor import (
  describe_image_options,
  parts_image_options,
  read_tokenizer,
)
from mllm_selector_jax.models.huggingface.processor_checks import (
  PREPROCESSOR,
  PROCESSOR,
  read_processor_fields,
)
from mllm_selector_jax.models.huggingface.source import read_json, write_json
from mllm_selector_jax.models.huggingface.stops import (
  GENERATION,
  describe_generation,
  list_ends,
)
from mllm_selector_jax.models.huggingface.tokenizer_files import (
  finish_tokenizer,
  save_tokenizer,
  write_template,
)
from mllm_selector_jax.models.huggingface.weights import Entry
from mllm_selector_jax.runs import peers

VIDEO = "video_preprocessor_config.json"
AUDIO = "feature_extractor"  # a field of processor_config.json
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
  VIDEO,
  "LICENSE",
)
SHARD_BYTES = 5 * 10**9
# Depend on the machine or name code that is not carried over.
DROPPED = ("_name_or_path", "transformers_version", "auto_map", "_commit_hash")


def write_tensors(path: Path, tensors: dict[str, Any]) -> None:
  """Writes a safetensors file that is either whole or not there."""
  with storage.writing(path) as partial:
    safetensors.numpy.save_file(tensors, str(partial), metadata={"format": "pt"})
    partial.chmod(0o644)  # safetensors makes files that only their owner reads


def _without_dropped(value: dict) -> dict:
  return {
    key: _without_dropped(item) if isinstance(item, dict) else item
    for key, item in value.items()
    if key not in DROPPED
  }


def _describe_model(hf_config: Any) -> dict[str, Any]:
  """config.json with field names that transformers 4 and 5 both know."""
  value = _without_dropped(hf_config.to_dict())
  text, vision = value["text_config"], value["vision_config"]
  rope = dict(text.get("rope_parameters") or {})
  if "full_attention" in rope:  # layers of two kinds, each with wavelengths of its own
    text["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    rope = dict(rope["full_attention"])
  text["rope_theta"] = rope.pop("rope_theta", 10000.0)
  if "partial_rotary_factor" in rope:
    text["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
  if rope.get("rope_type") == "longrope":
    # Version 4 of Phi-3 refuses other fields than these.
    rope = {key: rope[key] for key in ("short_factor", "long_factor")}
    text["rope_scaling"] = {"type": "longrope", **rope}
  elif rope.get("rope_type", "default") != "default":
    text["rope_scaling"] = rope
  if "vision_use_head" in vision:
    vision["vision_use_head"] = False  # pools an image, which LLaVA never does
  tied = bool(value.get("tie_word_embeddings"))
  parts = [part for part in value.values() if isinstance(part, dict)]
  for part in (value, *(part for part in parts if "model_type" in part)):
    part["dtype"] = part["torch_dtype"] = "float32"
  value["tie_word_embeddings"] = text["tie_word_embeddings"] = tied
  family = find_family(hf_config)
  if family.counts:
    value["image_seq_length"] = count_image_tokens(hf_config)
  value["architectures"] = [family.architecture]
  for name, older in family.older_fields.items():
    value[older] = value[name]
  return family.describe_config(value)


def _write_processor(
  folder: Path, parts: Parts, image_token: str, images: types.ImageOptions
) -> None:
  """The files that say how images are prepared and how many tokens they become."""
  family = find_family(parts.config)
  description = family.describe_processor(
    parts.config, image_token, count_image_tokens(parts.config)
  )
  write_json(folder / PREPROCESSOR, describe_image_options(images))
  # Version 5 writes what is in this file into processor_config.json.
  fields = read_processor_fields(parts.decoder)
  video = fields.get("video_processor")
  if video and not (folder / VIDEO).is_file():
    write_json(folder / VIDEO, _without_dropped(video))
  # Some processors ask for it whether the model takes audio or not.
  if extractor := fields.get(AUDIO):
    description[AUDIO] = _without_dropped(extractor)
  write_json(folder / PROCESSOR, description)


def _write_weights(
  folder: Path, config: MllmConfig, params: types.Params, carried: Sequence[Entry] = ()
) -> None:
  """The tensors, in files of up to SHARD_BYTES, one file's in memory at a time.

  Those of another folder (`carried`) come last, in the type that they have there; the
  first process alone has them.
  """
  sizes = [(stored.name, 4 * stored.size) for stored in mapping.list_stored(config)]
  sizes += [(name_carried(entry.key), entry.bytes) for entry in carried]
  shards: list[list[str]] = [[]]
  held = total = 0
  for name, size in sizes:
    if shards[-1] and held + size > SHARD_BYTES:
      shards.append([])
      held = 0
    shards[-1].append(name)
    held, total = held + size, total + size
  if len(shards) == 1:
    files = ["model.safetensors"]
  else:
    count = len(shards)
    files = [f"model-{n + 1:05}-of-{count:05}.safetensors" for n in range(count)]
  others = ((name_carried(entry.key), read_carried(entry)) for entry in carried)
  tensors = itertools.chain(mapping.to_tensors(config, params), others)
  for names, file in zip(shards, files, strict=True):
    if not peers.is_first_process():
      for _ in itertools.islice(tensors, len(names)):
        pass
      continue
    batch = dict(itertools.islice(tensors, len(names)))
    assert list(batch) == names
    write_tensors(folder / file, batch)
  if len(shards) > 1 and peers.is_first_process():
    where = {name: f for f, names in zip(files, shards, strict=True) for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_json(folder / "model.safetensors.index.json", index)


def write_model(
  folder: str | os.PathLike,
  config: MllmConfig,
  params: types.Params,
  source: str | os.PathLike,
  images: types.ImageOptions | None = None,
  chat_template: str | None = None,
  ends: Sequence[int] | None = None,
) -> None:
  """Writes a model directory; equal input gives equal bytes.

  Each file appears whole or not at all; the caller moves the directory. In a run of
  several processes all must call it, and the first one writes.

  Args:
    folder: made if missing.
    config: the model's shapes.
    params: its parameters, written as float32.
    source: the base, whose config, tokenizer, image processor and chat template
      are carried over.
    images: how images were prepared when the model was tuned, within the limits of the
      run; None for what the base's image processor does.
    chat_template: replaces the base's, so that the model is asked as it was tuned.
    ends: ids of the tokens that end the model's answers, the one that it was tuned
      to write first; None for the base's own.
  """
  write_parts(folder, config, params, find_parts(source), images, chat_template, ends)


def write_parts(
  folder: str | os.PathLike,
  config: MllmConfig,
  params: types.Params,
  parts: Parts,
  images: types.ImageOptions | None = None,
  chat_template: str | None = None,
  ends: Sequence[int] | None = None,
) -> None:
  """Writes a model made of these parts as one directory; see `write_model`."""
  folder = Path(folder)
  carried: list[Entry] = []
  if peers.is_first_process():
    images = images or parts_image_options(parts)
    _write_description(folder, config, parts, images, chat_template, ends)
    carried = list_carried(parts)
  _write_weights(folder, config, params, carried)


def _write_description(
  folder: Path,
  config: MllmConfig,
  parts: Parts,
  images: types.ImageOptions,
  chat_template: str | None,
  ends: Sequence[int] | None,
) -> None:
  """All that a model's directory holds beside the weights."""
  source = parts.decoder
  folder.mkdir(parents=True, exist_ok=True)
  for name in CARRIED:
    if not (source / name).is_file():
      continue
    if name.endswith(".json") and "auto_map" in (value := read_json(source / name)):
      write_json(folder / name, _without_dropped(value))
    elif (source / name).resolve() != (folder / name).resolve():
      shutil.copyfile(source / name, folder / name)
  tokenizer = read_tokenizer(parts)
  ends = list_ends(parts, tokenizer) if ends is None else ends
  write_json(folder / GENERATION, describe_generation(parts, ends))
  if parts.added or not (source / "tokenizer.json").is_file():
    save_tokenizer(tokenizer, folder)
  finish_tokenizer(folder, find_family(parts.config).named_tokens)
  write_template(folder, chat_template)
  token = tokenizer.convert_ids_to_tokens(config.image_token)
  described = _describe_model(parts.config)
  if images.pinpoints:  # which config.json repeats
    described["image_grid_pinpoints"] = [list(pair) for pair in images.pinpoints]
  write_json(folder / "config.json", described)
  _write_processor(folder, parts, token, images)


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
    hf_config: a transformers config of one of `model_families`.
    tokenizer: a transformers tokenizer that holds the family's image token; its chat
      template is written with it.
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
  finish_tokenizer(folder, find_family(hf_config).named_tokens)
  image_processor.save_pretrained(str(folder))
  write_json(folder / "config.json", _describe_model(hf_config))
  parts = find_parts(folder)
  token = find_family(hf_config).image_token
  _write_processor(folder, parts, token, parts_image_options(parts))
  ends = list_ends(parts, tokenizer)
  write_json(folder / GENERATION, describe_generation(parts, ends))
  config = read_config(folder)
  _write_weights(folder, config, mllm.init(config, seed))
  return config
