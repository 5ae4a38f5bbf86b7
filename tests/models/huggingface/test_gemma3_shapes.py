"""The mapping of the published sizes of Gemma 3, with nothing allocated."""

import math

import numpy as np
import pytest
import torch
import transformers

from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping, tensor_names
from mllm_selector_jax.models.huggingface.model_families import find_family
from mllm_selector_jax.training import work

TOWER = {
  "model_type": "siglip_vision_model",
  "hidden_size": 1152,
  "intermediate_size": 4304,
  "num_hidden_layers": 27,
  "num_attention_heads": 16,
  "image_size": 896,
  "patch_size": 14,
  "vision_use_head": False,
}
TEXT = {
  "model_type": "gemma3_text",
  "rope_scaling": {"rope_type": "linear", "factor": 8.0},
  "sliding_window": 1024,
}
# Sizes, and the number of parameters that the published files' headers sum up.
SIZES = {
  "4b": (
    {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34},
    4_300_079_472,
  ),
  "12b": (
    {
      "hidden_size": 3840,
      "intermediate_size": 15360,
      "num_hidden_layers": 48,
      "num_attention_heads": 16,
      "num_key_value_heads": 8,
    },
    12_187_325_040,
  ),
  "27b": (
    {
      "hidden_size": 5376,
      "intermediate_size": 21504,
      "num_hidden_layers": 62,
      "num_attention_heads": 32,
      "num_key_value_heads": 16,
      "head_dim": 128,
      "query_pre_attn_scalar": 168,
    },
    27_432_406_640,
  ),
}
DECODER, VISION = "language_model.model.", "vision_tower.vision_model."


@pytest.mark.parametrize("size", SIZES)
def test_every_tensor_of_the_published_models_has_its_place(size):
  text, total = SIZES[size]
  hf_config = transformers.Gemma3Config(
    vision_config=TOWER, text_config={**TEXT, **text}
  )
  family = find_family(hf_config)
  config = MllmConfig(
    family.read_tower(hf_config.vision_config),
    family.read_decoder(hf_config.text_config, tied=True),
    **family.read(hf_config),
  )
  with torch.device("meta"):
    model = transformers.Gemma3ForConditionalGeneration(hf_config)
  theirs = {
    tensor_names.canonical_name(name): tuple(value.shape)
    for name, value in model.state_dict().items()
    if name != "lm_head.weight"  # the embedding again
  }
  stored = {tensor.name: tensor.shape for tensor in mapping.list_stored(config)}
  assert stored == theirs
  assert sum(map(math.prod, stored.values())) == total
  # The names that exports have, as the published files.
  width = text["hidden_size"]
  assert stored["multi_modal_projector.mm_input_projection_weight"] == (1152, width)
  assert stored["multi_modal_projector.mm_soft_emb_norm.weight"] == (1152,)
  assert stored[f"{DECODER}embed_tokens.weight"] == (262208, width)
  assert f"{DECODER}layers.0.self_attn.q_norm.weight" in stored
  assert stored[f"{VISION}post_layernorm.weight"] == (1152,)
  assert stored[f"{VISION}embeddings.position_embedding.weight"] == (4096, 1152)
  # Large numbers beside the 32-bit columns of a pool.
  rates = work.make_rates(config, mllm.abstract(config), ("projector", "decoder"))
  few = np.ones(2, np.int32)
  assert (rates.flops(few, few, few, few) > 6 * width * 262208).all()
  # And what the published configs say of images and layers.
  assert (config.patches, config.merge, config.tiling.side) == (256, 4, 896)
  assert (config.image_token, config.decoder.window) == (262144, 1024)
  assert config.decoder.full_layers[:2] == (5, 11)
  rope, near = config.decoder.rope, config.decoder.window_rope
  assert (rope.kind, rope.factor, rope.theta) == ("linear", 8.0, 1e6)
  assert (near.kind, near.theta) == ("default", 1e4)
