"""VipLLaVA in the form of transformers: features of several layers, and a norm."""

from typing import Any

from mllm_selector_jax.models.huggingface.model_families.family import (
  ModelFamily,
  read_feature_layer,
)
from mllm_selector_jax.models.huggingface.model_families.llava_family import (
  describe_llava_processor,
)


def _read(config: Any) -> dict[str, Any]:
  return {
    "image_token": config.image_token_id,
    "feature_layer": read_feature_layer(config),
    # transformers leaves out the first place, whatever the tower has there.
    "select": "default",
    "projector_norm": "layer_norm",
    "projector_epsilon": config.projector_layernorm_eps,
    "names": "vipllava",
    "projector_activation": config.projector_hidden_act,
  }


FAMILY = ModelFamily(
  architecture="VipLlavaForConditionalGeneration",
  read=_read,
  describe_processor=describe_llava_processor,
  older_fields={"vision_feature_layer": "vision_feature_layers"},
)
