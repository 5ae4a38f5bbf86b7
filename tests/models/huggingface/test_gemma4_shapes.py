"""The mapping of the published sizes of Gemma 4, with nothing allocated."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
import transformers

from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.huggingface import (
  carried_tensors,
  mapping,
  tensor_names,
)
from mllm_selector_jax.training import work
from tests.models import packed
from tests.models.huggingface.test_native_parity import read

# The published configs, but for what transformers fills in.
DENSE = {
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
E4B = {
  "image_token_id": 258880,
  "audio_config": {"model_type": "gemma4_audio"},
  "text_config": {
    "model_type": "gemma4_text",
    "final_logit_softcapping": 30.0,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_attention_heads": 8,
    "num_hidden_layers": 42,
    "num_key_value_heads": 2,
    "num_kv_shared_layers": 18,
  },
  "vision_config": {"model_type": "gemma4_vision", "use_clipped_linears": True},
}
E2B = {
  **E4B,
  "text_config": {
    **E4B["text_config"],
    "hidden_size": 1536,
    "intermediate_size": 6144,
    "layer_types": [*["sliding_attention"] * 4, "full_attention"] * 7,
    "num_hidden_layers": 35,
    "num_key_value_heads": 1,
    "num_kv_shared_layers": 20,
    "use_double_wide_mlp": True,
  },
}


class Size(NamedTuple):
  """A published size, and what its configs say.

  Attributes:
    config: of transformers.
    parameters: more and fewer than it has, in thousand millions; those for audio not
      counted.
    width: of the decoder.
    full: a layer that sees all tokens; the last one does so, too.
    carried: whether it has a part for audio.
  """

  config: dict
  parameters: tuple[float, float]
  width: int
  full: int
  carried: bool = True


SIZES = {
  "31B": Size(DENSE, (30, 32), 5376, 5, carried=False),
  "E2B": Size(E2B, (4.7, 5), 1536, 4),
  "E4B": Size(E4B, (7.5, 8), 2560, 5),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_tensor_of_a_published_model_has_its_place(size):
  hf_config = transformers.Gemma4Config(**size.config)
  config = read(hf_config)
  with torch.device("meta"):
    model = transformers.Gemma4ForConditionalGeneration(hf_config)
  carried = carried_tensors.find_carried(hf_config)
  assert (carried is not None) == size.carried
  theirs = {
    name: tuple(value.shape)
    for name, value in model.state_dict().items()
    if name != "lm_head.weight"  # the embedding again
    and not (carried and carried.search(name))
  }
  stored = {tensor.name: tensor.shape for tensor in mapping.list_stored(config)}
  assert stored == theirs
  canonical = {name for leaf in mapping.list_leaves(config) for name in leaf.names}
  assert {tensor_names.canonical_name(name, "gemma4") for name in stored} == canonical
  least, most = size.parameters
  assert least * 1e9 < sum(map(math.prod, stored.values())) < most * 1e9
  # Large numbers beside the 32-bit columns of a pool.
  rates = work.make_rates(config, mllm.abstract(config), ("projector", "decoder"))
  few = np.ones(2, np.int32)
  assert (rates.flops(few, few, few, few) > 6 * size.width * 262144).all()
  # What the configs say of images and layers.
  assert (config.patches, config.merge, config.tiling.side) == (1, 3, 48)
  near = size.full - 1, size.full + 1
  kinds = [config.decoder.order[number] for number in (near[0], size.full, near[1])]
  assert kinds == ["window", "full", "window"]
  assert config.decoder.full_layers[-1] == config.decoder.layers - 1
  states = packed.trace_hidden_states(config, 256, 70)
  assert states.shape == (2, 256, size.width)


@pytest.mark.parametrize(("size", "sources"), [(E2B, (13, 14)), (E4B, (22, 23))])
def test_the_layers_whose_keys_others_read(size, sources):
  text = transformers.Gemma4Config(**size).text_config
  decoder = read(transformers.Gemma4Config(**size)).decoder
  modes = text.kv_sharing_modes
  assert [n for n, mode in enumerate(modes) if mode == "store"] == list(sources)
  near, far = sources
  assert decoder.sources == {"sharing_window": near, "sharing_full": far}
