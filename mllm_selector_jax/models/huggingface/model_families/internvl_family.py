"""InternVL in the form of transformers: merged patches, a norm before the projector."""

from typing import Any

from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  find_layer_problems,
  refuse,
  settle_tying,
)

IMAGE_TOKEN, VIDEO_TOKEN = "<IMG_CONTEXT>", "<video>"
TOWER = "internvl_vision"


def _read(config: Any) -> dict[str, Any]:
  problems = find_layer_problems(config)
  ratio = config.downsample_ratio
  merge = round(1 / ratio) if ratio > 0 else 0
  if merge < 1 or abs(merge * ratio - 1) > 1e-6:
    problems.append(f"downsample_ratio is {ratio}, only 1 / n can be run")
  vision, layer = config.vision_config, config.vision_feature_layer
  if vision.model_type != TOWER:
    # Of others, transformers takes the state of -1 after the final norm or before it.
    problems.append(
      f"vision_config.model_type is {vision.model_type!r}, only {TOWER!r} can be run"
    )
  refuse(problems)
  return {
    "image_token": config.image_token_id,
    "feature_layer": layer,
    "select": config.vision_feature_select_strategy,
    # transformers norms the state of -1, but not the same one under its number.
    "feature_norm": layer == -1 and not vision.use_mean_pooling,
    "merge": merge,
    "projector_norm": "layer_norm",
    "projector_activation": config.projector_hidden_act,
  }


def _describe_processor(config: Any, image_token: str, features: int) -> dict[str, Any]:
  return {"processor_class": "InternVLProcessor", "image_seq_length": features}


FAMILY = ModelFamily(
  architecture="InternVLForConditionalGeneration",
  read=_read,
  describe_processor=_describe_processor,
  image_token=IMAGE_TOKEN,
  image_marks={
    "begin": ("start_image_token", "<img>"),
    "end": ("end_image_token", "</img>"),
  },
  named_tokens={
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": IMAGE_TOKEN,
    "video_token": VIDEO_TOKEN,
  },
  # The processor replaces it with image tokens; it was added after the embeddings.
  unread_tokens=(VIDEO_TOKEN,),
  settle=settle_tying,
)
