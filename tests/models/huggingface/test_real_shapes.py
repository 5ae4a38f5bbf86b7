"""The mapping of the published 7B and 13B models, with nothing allocated."""

import math

import jax
import pytest
import torch
import transformers

from mllm_selector_jax import types
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping
from mllm_selector_jax.models.huggingface.families import read_decoder, read_tower

# Tensors and parameters of each, as the published files' headers sum up:
# 24 x 16 + 7 of the tower (without its position ids), 4, 9 a layer, 3.
SIZES = {
  "llava-1.5-7b": (
    {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32},
    7_063_427_072,
  ),
  "llava-1.5-13b": (
    {
      "hidden_size": 5120,
      "intermediate_size": 13824,
      "num_hidden_layers": 40,
      "num_attention_heads": 40,
      "num_key_value_heads": 40,
    },
    13_351_494_656,
  ),
}


def make_config(text):
  return transformers.LlavaConfig(
    vision_config={
      "model_type": "clip_vision_model",
      "hidden_size": 1024,
      "intermediate_size": 4096,
      "num_hidden_layers": 24,
      "num_attention_heads": 16,
      "image_size": 336,
      "patch_size": 14,
      "projection_dim": 768,
    },
    text_config={"model_type": "llama", "vocab_size": 32064, **text},
  )


@pytest.mark.parametrize("name", SIZES)
def test_every_tensor_of_the_published_models_has_its_place(name):
  text, total = SIZES[name]
  hf_config = make_config(text)
  config = MllmConfig(
    read_tower(hf_config.vision_config),
    read_decoder(hf_config.text_config, tied=False),
    image_token=32000,
  )
  with torch.device("meta"):
    model = transformers.LlavaForConditionalGeneration(hf_config)
  theirs = {
    mapping.canonical_name(key): tuple(value.shape)
    for key, value in model.state_dict().items()
  }
  leaves = list(mapping.list_leaves(config))
  ours = {name: leaf.shape for leaf in leaves for name in leaf.names}
  assert ours == theirs
  assert len(ours) == 24 * 16 + 7 + 4 + 9 * text["num_hidden_layers"] + 3
  beginnings = (
    "language_model.",
    "vision_tower.vision_model.",
    "multi_modal_projector.",
  )
  assert all(name.startswith(beginnings) for name in ours)
  abstract = jax.tree.leaves(mllm.abstract(config))
  assert {type(leaf) for leaf in abstract} == {jax.ShapeDtypeStruct}
  assert sum(math.prod(leaf.shape) for leaf in abstract) == total


def test_shapes_flow_through_the_seven_billion():
  hf_config = make_config(SIZES["llava-1.5-7b"][0])
  config = MllmConfig(
    read_tower(hf_config.vision_config),
    read_decoder(hf_config.text_config, tied=False),
    image_token=32000,
    dtype="bfloat16",
  )

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype)

  row = array("int32", 2, 2048)
  few = array("int32", 2, 64)
  batch = types.Batch(
    tokens=row,
    positions=row,
    segments=row,
    patches=row,
    images=array("uint8", 2, 3, 336, 336, 3),
    predict=few,
    targets=few,
    weights=array("float32", 2, 64),
    answers=few,
  )
  hidden = jax.eval_shape(
    lambda params, batch: mllm.hidden_states(config, params, batch),
    mllm.abstract(config),
    batch,
  )
  assert (hidden.shape, hidden.dtype) == ((2, 2048, 4096), "bfloat16")
