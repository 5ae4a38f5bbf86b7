"""From a LLaVA config.json, of transformers 4 or 5, to our configuration."""

import os
from pathlib import Path
from typing import Any

from mllm_selector_jax.models.config import DecoderConfig, MllmConfig, VisionConfig
from mllm_selector_jax.models.huggingface.processor import read_image_options
from mllm_selector_jax.models.huggingface.source import find_model, read_json
from mllm_selector_jax.types import InputError


def load_hf_config(folder: Path) -> Any:
  """LlavaConfig, as transformers has it, of a directory; no remote code is ever run.

  Raises:
    InputError: missing, malformed, or not of a LLaVA model.
  """
  path = folder / "config.json"
  kind = read_json(path).get("model_type")
  if kind != "llava":
    raise InputError(
      f"{path}: model_type is {kind!r}; only 'llava' (the Hugging Face form, such as"
      " llava-hf/llava-1.5-7b-hf) can be read."
    )
  from transformers import AutoConfig

  try:
    return AutoConfig.from_pretrained(
      str(folder), local_files_only=True, trust_remote_code=False
    )
  except Exception as error:
    # Its validation raises many kinds, all of which mean a wrong file.
    raise InputError(f"{path} is not a valid LLaVA configuration: {error}") from error


def read_config(
  path: str | os.PathLike, dtype: str = "float32", remat: bool = False
) -> MllmConfig:
  """The configuration of a model directory (or hub name).

  Args:
    path: a Hugging Face directory in LLaVA form.
    dtype: of the computation.
    remat: recompute blocks in the backward pass.

  Raises:
    InputError: with everything in config.json that we cannot do.
  """
  folder = find_model(path)
  hf_config = load_hf_config(folder)
  text, vision = hf_config.text_config, hf_config.vision_config
  rope = getattr(text, "rope_parameters", None) or {}
  wanted = (
    ("text_config.model_type", text.model_type, "llama"),
    ("text_config.hidden_act", getattr(text, "hidden_act", None), "silu"),
    ("text_config.attention_bias", getattr(text, "attention_bias", False), False),
    ("text_config.mlp_bias", getattr(text, "mlp_bias", False), False),
    ("text_config rope_type", rope.get("rope_type", "default"), "default"),
    ("vision_config.model_type", vision.model_type, "clip_vision_model"),
    ("vision_config.num_channels", getattr(vision, "num_channels", 3), 3),
    (
      "vision_feature_select_strategy",
      hf_config.vision_feature_select_strategy,
      "default",
    ),
    ("multimodal_projector_bias", hf_config.multimodal_projector_bias, True),
  )
  problems = [
    f"{name} is {found!r}, only {only!r} can be run"
    for name, found, only in wanted
    if found != only
  ]
  whole = (
    ("vision_feature_layer", hf_config.vision_feature_layer),
    ("vision_config.image_size", getattr(vision, "image_size", None)),
    ("vision_config.patch_size", getattr(vision, "patch_size", None)),
  )
  problems += [
    f"{name} is {found!r}, only a single number can be run"
    for name, found in whole
    if not isinstance(found, int)
  ]
  if problems:
    raise InputError(f"{folder / 'config.json'}: " + "; ".join(problems) + ".")
  options = read_image_options(folder, vision.image_size)
  return MllmConfig(
    vision=VisionConfig(
      width=vision.hidden_size,
      mlp=vision.intermediate_size,
      layers=vision.num_hidden_layers,
      heads=vision.num_attention_heads,
      image_size=vision.image_size,
      patch_size=vision.patch_size,
      activation=vision.hidden_act,
      epsilon=vision.layer_norm_eps,
    ),
    decoder=DecoderConfig(
      vocab=text.vocab_size,
      width=text.hidden_size,
      mlp=text.intermediate_size,
      layers=text.num_hidden_layers,
      heads=text.num_attention_heads,
      kv_heads=text.num_key_value_heads,
      head_dim=text.head_dim,
      rope_theta=float(rope.get("rope_theta", 10000.0)),
      epsilon=text.rms_norm_eps,
      tied=bool(hf_config.tie_word_embeddings),
      max_length=text.max_position_embeddings,
    ),
    image_token=hf_config.image_token_index,
    feature_layer=hf_config.vision_feature_layer,
    projector_activation=hf_config.projector_hidden_act,
    image_mean=options.mean,
    image_std=options.std,
    dtype=dtype,
    remat=remat,
  )
