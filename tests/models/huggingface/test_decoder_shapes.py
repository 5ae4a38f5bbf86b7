"""Exports of published decoders, tensor by tensor, with nothing allocated."""

import dataclasses

import pytest
import torch
import transformers

from mllm_selector_jax.models.huggingface import mapping
from mllm_selector_jax.models.huggingface.decoder_families import read_decoder
from tests.models import packed

PHI = {"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192}
# config.json as it is published, and the parameters that the files hold.
PUBLISHED = {
  "Phi-3-mini-4k": (
    {
      **PHI,
      "num_attention_heads": 32,
      "num_hidden_layers": 32,
      "num_key_value_heads": 32,
      "original_max_position_embeddings": 4096,
      "max_position_embeddings": 4096,
      "rope_scaling": None,
      "rope_theta": 10000.0,
      "sliding_window": 2047,
      "vocab_size": 32064,
    },
    3_821_079_552,
  ),
  "Phi-4-mini": (
    {
      **PHI,
      "num_attention_heads": 24,
      "num_hidden_layers": 32,
      "num_key_value_heads": 8,
      "original_max_position_embeddings": 4096,
      "max_position_embeddings": 131072,
      "partial_rotary_factor": 0.75,
      "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0] * 48,
        "long_factor": [1.0 + n for n in range(48)],
      },
      "rope_theta": 10000.0,
      "sliding_window": 262144,
      "tie_word_embeddings": True,
      "vocab_size": 200064,
      "pad_token_id": 199999,
    },
    3_836_021_760,
  ),
  "granite-3.1-2b": (
    {
      "model_type": "granite",
      "attention_multiplier": 0.015625,
      "embedding_multiplier": 12.0,
      "residual_multiplier": 0.22,
      "logits_scaling": 8.0,
      "hidden_size": 2048,
      "intermediate_size": 8192,
      "max_position_embeddings": 131072,
      "num_attention_heads": 32,
      "num_hidden_layers": 40,
      "num_key_value_heads": 8,
      "rope_theta": 5000000.0,
      "tie_word_embeddings": True,
      "vocab_size": 49155,
    },
    2_533_531_648,
  ),
  "GLM-4-9B-0414": (
    {
      "model_type": "glm4",
      "attention_bias": True,
      "head_dim": 128,
      "hidden_size": 4096,
      "intermediate_size": 13696,
      "max_position_embeddings": 32768,
      "num_attention_heads": 32,
      "num_hidden_layers": 40,
      "num_key_value_heads": 2,
      "partial_rotary_factor": 0.5,
      "rms_norm_eps": 1e-05,
      "rope_theta": 10000.0,
      "vocab_size": 151552,
    },
    9_400_279_040,
  ),
}


def read_published(name):
  """The transformers config of a decoder, and ours."""
  value = {key: item for key, item in PUBLISHED[name][0].items() if key != "model_type"}
  config = transformers.AutoConfig.for_model(PUBLISHED[name][0]["model_type"], **value)
  return config, read_decoder(config, tied=config.tie_word_embeddings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_export_has_the_published_tensors(name):
  hf_config, decoder = read_published(name)
  with torch.device("meta"):
    model = transformers.AutoModelForCausalLM.from_config(hf_config)
  theirs = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
  if decoder.tied:
    del theirs["lm_head.weight"]
  whole = dataclasses.replace(packed.CONFIG, decoder=decoder)
  start = "language_model."
  ours = {
    stored.name.removeprefix(start): stored
    for stored in mapping.list_stored(whole)
    if stored.name.startswith(start)
  }
  assert {key: stored.shape for key, stored in ours.items()} == theirs
  assert sum(stored.size for stored in ours.values()) == PUBLISHED[name][1]


def test_what_the_published_configs_say_is_read():
  _, phi = read_published("Phi-4-mini")
  assert (phi.head_dim, phi.rope.count_turned(128), phi.fused) == (
    128,
    96,
    ("qkv", "gate_up"),
  )
  assert (phi.max_length, phi.limit) == (4096, "rope_type 'longrope'")
  assert phi.rope.scale == pytest.approx(1.1902380714238083)
  _, phi = read_published("Phi-3-mini-4k")
  assert (phi.window, phi.rope.share, phi.limit) == (2047, 1.0, "")
  _, granite = read_published("granite-3.1-2b")
  assert (granite.query_scale, granite.output_scale) == (0.015625 * 8, 1 / 8)
  _, glm = read_published("GLM-4-9B-0414")
  assert glm.rope.neighbours and glm.rope.count_turned(128) == 64
