"""OpenGVLab's own form of InternVL, read as the form of transformers."""

from pathlib import Path
from typing import Any

from mllm_selector_jax.models.huggingface.model_families.family import refuse
from mllm_selector_jax.models.huggingface.model_families.internvl_family import (
  IMAGE_TOKEN,
)
from mllm_selector_jax.types import InputError

MODEL_TYPE = "internvl_chat"
TEXT = ("qwen2", "llama", "qwen3")
# The form's own defaults, for what a config.json leaves out.
_VISION = {
  "hidden_size": 3200,
  "num_hidden_layers": 48,
  "num_attention_heads": 25,
  "intermediate_size": 12800,
  "hidden_act": "gelu",
  "image_size": 224,
  "patch_size": 14,
  "layer_norm_eps": 1e-6,
  "norm_type": "rms_norm",
}
# Of ImageNet, which the form's code uses whatever preprocessor_config.json says.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_QK_EPSILON = 1e-6  # of transformers' norms of queries and keys, whatever the config


def read_internvl_chat(path: Path, raw: dict[str, Any], tokenizer: Any) -> Any:
  """The transformers InternVLConfig that means the same.

  Args:
    path: of the config.json, for messages.
    raw: what it holds.
    tokenizer: the model's, which knows the image token's id.

  Raises:
    InputError: with every field that cannot be run.
  """
  from transformers import AutoConfig, InternVLConfig, InternVLVisionConfig

  text, vision = dict(raw.get("llm_config") or {}), dict(raw.get("vision_config") or {})
  try:
    refuse(_find_problems(raw, text, vision))
    image_token = tokenizer.get_vocab().get(IMAGE_TOKEN)
    if image_token is None:
      raise InputError(f"the tokenizer has no token {IMAGE_TOKEN}")
  except InputError as error:
    raise InputError(f"{path}: {error}.") from error
  kind = text.pop("model_type")
  text.pop("auto_map", None)
  tied = bool(text.get("tie_word_embeddings", False))
  return InternVLConfig(
    vision_config=InternVLVisionConfig(
      **{key: vision.get(key, default) for key, default in _VISION.items()},
      attention_bias=bool(vision.get("qkv_bias", False)),
      use_qk_norm=bool(vision.get("qk_normalization", True)),
    ),
    text_config=AutoConfig.for_model(kind, **text),
    image_token_id=image_token,
    downsample_ratio=raw.get("downsample_ratio", 0.5),
    vision_feature_layer=raw.get("select_layer", -1),
    tie_word_embeddings=tied,
  )


def describe_images(raw: dict[str, Any], config: Any) -> dict[str, Any]:
  """preprocessor_config.json of the processor of transformers that does the same.

  Args:
    raw: what config.json holds.
    config: what `read_internvl_chat` gave for it.
  """
  height, width = config.vision_config.image_size
  tiled = bool(raw.get("dynamic_image_size", False))
  return {
    "image_processor_type": "GotOcr2ImageProcessor",
    "processor_class": "InternVLProcessor",
    "crop_to_patches": tiled,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": list(_MEAN),
    "image_std": list(_DEVIATION),
    "max_patches": raw.get("max_dynamic_patch", 6) if tiled else 1,
    "min_patches": raw.get("min_dynamic_patch", 1) if tiled else 1,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": height, "width": width},
  }


def _find_problems(
  raw: dict[str, Any], text: dict[str, Any], vision: dict[str, Any]
) -> list[str]:
  problems = []
  kind = text.get("model_type")
  if kind == "internlm2":
    problems.append(
      "llm_config.model_type is 'internlm2', which holds query, key and value of a"
      " layer as one tensor (wqkv), in an order of its own, and which transformers has"
      " no class for; InternVL models with a"
      f" {', '.join(TEXT)} decoder can be run"
    )
  elif kind not in TEXT:
    problems.append(
      f"llm_config.model_type is {kind!r}, only {', '.join(TEXT)} can be run"
    )
  wanted = {
    "ps_version": ("v1", "v2"),
    "use_llm_lora": (0, 0),
    "use_backbone_lora": (0, 0),
    "pad2square": (False, False),
  }
  if raw.get("dynamic_image_size"):
    wanted["use_thumbnail"] = (False, True)
  for key, (default, value) in wanted.items():
    if raw.get(key, default) != value:
      problems.append(f"{key} is {raw.get(key, default)!r}, only {value!r} can be run")
  side = vision.get("image_size", _VISION["image_size"])
  if raw.get("force_image_size") not in (None, side):
    problems.append(
      f"force_image_size is {raw['force_image_size']}, but vision_config.image_size is"
      f" {side}; only the same can be run"
    )
  epsilon = vision.get("layer_norm_eps", _VISION["layer_norm_eps"])
  if vision.get("qk_normalization", True) and epsilon != _QK_EPSILON:
    problems.append(
      f"vision_config.layer_norm_eps is {epsilon}, only {_QK_EPSILON} can be run with"
      " qk_normalization"
    )
  return problems
