"""The mapping of the published size of Gemma 4, with nothing allocated."""

import math

import numpy as np
import torch
import transformers

from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.huggingface import mapping, tensor_names
from mllm_selector_jax.training import work
from tests.models import packed
from tests.models.huggingface.test_native_parity import read

# The config of the 31B, but for what transformers fills in.
CONFIG = {
  "image_token_id": 258880,
  "audio_config": None,
  "text_config": {
    "model_type": "gemma4_text",
    "attention_k_eq_v": True,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 512,
    "hidden_size": 5376,
    "hidden_size_per_layer_input": 0,
    "intermediate_size": 21504,
    "max_position_embeddings": 262144,
    "num_attention_heads": 32,
    "num_global_key_value_heads": 4,
    "num_hidden_layers": 60,
    "num_key_value_heads": 16,
    "sliding_window": 1024,
    "use_bidirectional_attention": "vision",
  },
  "vision_config": {
    "model_type": "gemma4_vision",
    "head_dim": 72,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "standardize": True,
  },
}


def test_every_tensor_of_the_published_model_has_its_place():
  hf_config = transformers.Gemma4Config(**CONFIG)
  config = read(hf_config)
  with torch.device("meta"):
    model = transformers.Gemma4ForConditionalGeneration(hf_config)
  theirs = {
    name: tuple(value.shape)
    for name, value in model.state_dict().items()
    if name != "lm_head.weight"  # the embedding again
  }
  stored = {tensor.name: tensor.shape for tensor in mapping.list_stored(config)}
  assert stored == theirs
  canonical = {name for leaf in mapping.list_leaves(config) for name in leaf.names}
  assert {tensor_names.canonical_name(name, "gemma4") for name in stored} == canonical
  assert 30e9 < sum(map(math.prod, stored.values())) < 32e9
  # Large numbers beside the 32-bit columns of a pool.
  rates = work.make_rates(config, mllm.abstract(config), ("projector", "decoder"))
  few = np.ones(2, np.int32)
  assert (rates.flops(few, few, few, few) > 6 * 5376 * 262144).all()
  # What the configs say of images and layers.
  assert (config.patches, config.merge, config.tiling.side) == (1, 3, 48)
  assert config.decoder.order[4:7] == ("window", "full", "window")
  assert config.decoder.full_layers[-1] == 59
  assert packed.trace_hidden_states(config, 256, 70).shape == (2, 256, 5376)
