"""Exports of the published Idefics 3 and SmolVLM models, with nothing allocated."""

import json
import math

import jax
import pytest
import torch
import transformers

from mllm_selector_jax import sharding
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping, model_parts
from mllm_selector_jax.models.huggingface.model_families import (
  count_image_tokens,
  find_family,
)
from mllm_selector_jax.models.huggingface.writer import _describe_model
from tests.models import packed

BASE_TOWER = {
  "hidden_size": 768,
  "image_size": 512,
  "max_image_size": {"longest_edge": 512},
  "num_attention_heads": 12,
  "patch_size": 16,
  "size": {"longest_edge": 2048},
  "tie_word_embeddings": False,
}
LARGE_TOWER = {
  "hidden_size": 1152,
  "intermediate_size": 4304,
  "num_hidden_layers": 27,
  "num_attention_heads": 16,
  "patch_size": 14,
}
SMOL = {
  "model_type": "llama",
  "max_position_embeddings": 8192,
  "rms_norm_eps": 1e-05,
  "rope_theta": 100000,
  "rope_scaling": None,
  "tie_word_embeddings": False,
  "vocab_size": 49280,
  "eos_token_id": 2,
  "pad_token_id": 2,
}
SMALL = {
  **SMOL,
  "hidden_size": 576,
  "intermediate_size": 1536,
  "num_hidden_layers": 30,
  "num_attention_heads": 9,
  "num_key_value_heads": 3,
  "head_dim": 64,
}
MEDIUM = {
  **SMOL,
  "hidden_size": 960,
  "intermediate_size": 2560,
  "num_hidden_layers": 32,
  "num_attention_heads": 15,
  "num_key_value_heads": 5,
  "head_dim": 64,
}
LARGE = {
  **SMOL,
  "hidden_size": 2048,
  "intermediate_size": 8192,
  "num_hidden_layers": 24,
  "num_attention_heads": 32,
  "num_key_value_heads": 32,
  "rope_theta": 130000.0,
}
LLAMA3 = {
  **SMOL,
  "hidden_size": 4096,
  "intermediate_size": 14336,
  "num_hidden_layers": 32,
  "num_attention_heads": 32,
  "num_key_value_heads": 8,
  "max_position_embeddings": 10240,
  "rope_theta": 500000.0,
  "vocab_size": 128259,
}
# Fields of config.json, features of a tile, and the number of parameters; of the first,
# the published file's header has that number, and 471 tensors.
PUBLISHED = {
  "SmolVLM-256M": (
    {
      "model_type": "idefics3",
      "vision_config": {**BASE_TOWER, "model_type": "siglip_vision_model"},
      "text_config": SMALL,
      "scale_factor": 4,
      "image_token_id": 49190,
    },
    64,
    256_484_928,
  ),
  "SmolVLM2-500M": (
    {
      "model_type": "smolvlm",
      "vision_config": {**BASE_TOWER, "model_type": "smolvlm_vision"},
      "text_config": MEDIUM,
      "scale_factor": 4,
      "image_token_id": 49190,
    },
    64,
    507_482_304,
  ),
  "SmolVLM2-2.2B": (
    {
      "model_type": "smolvlm",
      "vision_config": {**LARGE_TOWER, "image_size": 384},
      "text_config": LARGE,
      "scale_factor": 3,
      "image_token_id": 49190,
    },
    81,
    2_246_784_880,
  ),
  "Idefics3-8B": (
    {
      "model_type": "idefics3",
      "vision_config": {
        **LARGE_TOWER,
        "image_size": 364,
        "model_type": "idefics3",
      },
      "text_config": LLAMA3,
      "scale_factor": 2,
      "image_token_id": 128257,
    },
    169,
    8_462_086_384,
  ),
}


def read_published(folder, name):
  """The transformers config of a published model, and ours."""
  value = {"tie_word_embeddings": False, **PUBLISHED[name][0]}
  (folder / "config.json").write_text(json.dumps(value))
  hf_config = model_parts.load_hf_config(folder)
  family = find_family(hf_config)
  family.settle(hf_config, value)
  config = MllmConfig(
    family.read_tower(hf_config.vision_config),
    family.read_decoder(
      hf_config.text_config, tied=bool(hf_config.tie_word_embeddings)
    ),
    **family.read(hf_config),
  )
  return hf_config, config


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_tensor_has_its_place(tmp_path, name):
  hf_config, config = read_published(tmp_path, name)
  _, features, parameters = PUBLISHED[name]
  assert config.patches == features == count_image_tokens(hf_config)
  with torch.device("meta"):
    model = transformers.AutoModelForImageTextToText.from_config(hf_config)
  theirs = {key: tuple(value.shape) for key, value in model.state_dict().items()}
  ours = {stored.name: stored.shape for stored in mapping.list_stored(config)}
  assert ours == theirs
  assert sum(map(math.prod, ours.values())) == parameters
  if name == "SmolVLM-256M":
    assert len(ours) == 471


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_described_config_is_read_as_the_published_one(tmp_path, name):
  hf_config, config = read_published(tmp_path, name)
  described = _describe_model(hf_config)
  kind = PUBLISHED[name][0]["model_type"]
  assert described["vision_config"]["model_type"] == f"{kind}_vision"
  assert described["text_config"]["rope_theta"] == config.decoder.rope.theta
  (tmp_path / "config.json").write_text(json.dumps(described))
  again = model_parts.load_hf_config(tmp_path)
  family = find_family(again)
  assert family.read_tower(again.vision_config) == config.vision
  assert family.read_decoder(again.text_config) == config.decoder


@pytest.mark.parametrize("name", ["SmolVLM2-2.2B", "Idefics3-8B"])
def test_the_published_models_are_cut_evenly(tmp_path, name):
  _, config = read_published(tmp_path, name)
  abstract = mllm.abstract(config)
  mesh = sharding.make_mesh(1, 8, 1)
  layout = sharding.parameter_shardings(abstract, logical_axes(abstract), mesh)
  total = held = 0
  for leaf, own in zip(jax.tree.leaves(abstract), jax.tree.leaves(layout), strict=True):
    total += math.prod(leaf.shape)
    held += math.prod(own.shard_shape(leaf.shape))
  assert held * 8 < 1.01 * total


def test_shapes_flow_through_the_eight_billion(tmp_path):
  _, config = read_published(tmp_path, "Idefics3-8B")
  hidden = packed.trace_hidden_states(config, 4096, tiles=17)
  assert hidden.shape == (2, 4096, 4096)
