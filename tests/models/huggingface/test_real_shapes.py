"""The mapping of the published 7B and 13B models, with nothing allocated."""

import math

import jax
import pytest
import torch
import transformers

from benchmarks.plan_families import CASES, QWEN3_8B
from mllm_selector_jax import sharding
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping, tensor_names
from mllm_selector_jax.models.huggingface.decoder_families import read_decoder
from mllm_selector_jax.models.huggingface.model_families import find_family
from mllm_selector_jax.models.huggingface.tower_families import read_tower
from mllm_selector_jax.models.lora_options import LoraConfig
from tests.models import packed

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


LAYER = {
  "input_layernorm": "D",
  "self_attn.q_proj": "DD",
  "self_attn.k_proj": "DD",
  "self_attn.v_proj": "DD",
  "self_attn.o_proj": "DD",
  "post_attention_layernorm": "D",
  "mlp.gate_proj": "MD",
  "mlp.up_proj": "MD",
  "mlp.down_proj": "DM",
}
TOWER_LAYER = {
  "layer_norm1": (1024,),
  "self_attn.q_proj": (1024, 1024),
  "self_attn.k_proj": (1024, 1024),
  "self_attn.v_proj": (1024, 1024),
  "self_attn.out_proj": (1024, 1024),
  "layer_norm2": (1024,),
  "mlp.fc1": (4096, 1024),
  "mlp.fc2": (1024, 4096),
}


def list_published(text):
  """Names and shapes as llava-hf's index and headers have them, written down here."""
  width, mlp = text["hidden_size"], text["intermediate_size"]
  side = {"D": width, "M": mlp}
  tower, decoder = "vision_tower.vision_model.", "language_model.model."
  found = {
    "language_model.lm_head.weight": (32064, width),
    decoder + "embed_tokens.weight": (32064, width),
    decoder + "norm.weight": (width,),
    "multi_modal_projector.linear_1.weight": (width, 1024),
    "multi_modal_projector.linear_1.bias": (width,),
    "multi_modal_projector.linear_2.weight": (width, width),
    "multi_modal_projector.linear_2.bias": (width,),
    tower + "embeddings.class_embedding": (1024,),
    tower + "embeddings.patch_embedding.weight": (1024, 3, 14, 14),
    tower + "embeddings.position_embedding.weight": (577, 1024),
  }
  for norm in ("pre_layrnorm", "post_layernorm"):
    found |= {f"{tower}{norm}.{kind}": (1024,) for kind in ("weight", "bias")}
  for layer in range(text["num_hidden_layers"]):
    for name, sides in LAYER.items():
      shape = tuple(side[letter] for letter in sides)
      found[f"{decoder}layers.{layer}.{name}.weight"] = shape
  for layer in range(24):
    for name, shape in TOWER_LAYER.items():
      stem = f"{tower}encoder.layers.{layer}.{name}"
      found |= {f"{stem}.weight": shape, f"{stem}.bias": shape[:1]}
  return found


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
    tensor_names.canonical_name(key): tuple(value.shape)
    for key, value in model.state_dict().items()
  }
  leaves = list(mapping.list_leaves(config))
  ours = {name: leaf.shape for leaf in leaves for name in leaf.names}
  assert ours == theirs == list_published(text)
  assert len(ours) == 24 * 16 + 7 + 4 + 9 * text["num_hidden_layers"] + 3
  abstract = jax.tree.leaves(mllm.abstract(config))
  assert {type(leaf) for leaf in abstract} == {jax.ShapeDtypeStruct}
  assert sum(math.prod(leaf.shape) for leaf in abstract) == total


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("shape", [(1, 8, 1), (1, 2, 4), (2, 2, 2)])
def test_the_published_models_are_cut_evenly(name, shape):
  hf_config = make_config(SIZES[name][0])
  config = MllmConfig(
    read_tower(hf_config.vision_config),
    read_decoder(hf_config.text_config, tied=False),
    image_token=32000,
    lora=LoraConfig(128, 256.0),
  )
  abstract = mllm.abstract(config)
  mesh = sharding.make_mesh(*shape)
  layout = sharding.parameter_shardings(abstract, logical_axes(abstract), mesh)
  total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract))
  held = 0
  for (path, leaf), own in zip(
    jax.tree_util.tree_leaves_with_path(abstract), jax.tree.leaves(layout), strict=True
  ):
    size, part = math.prod(leaf.shape), math.prod(own.shard_shape(leaf.shape))
    held += part
    # The matrices of the decoder, which are nearly everything.
    if path[0].key == "decoder" and leaf.ndim > 1 and "norm" not in str(path):
      assert part * shape[1] * shape[2] == size, path
  # Half of the adapter is not cut over tensor.
  assert held * shape[1] * shape[2] < 1.08 * total


def test_shapes_flow_through_the_seven_billion():
  hf_config = make_config(SIZES["llava-1.5-7b"][0])
  config = MllmConfig(
    read_tower(hf_config.vision_config),
    read_decoder(hf_config.text_config, tied=False),
    image_token=32000,
    dtype="bfloat16",
  )
  hidden = packed.trace_hidden_states(config, 2048, tiles=3)
  assert (hidden.shape, hidden.dtype) == ((2, 2048, 4096), "bfloat16")


# Whole models of other families as they are published: the sizes of tower and decoder.
QWEN2_05B = {
  "model_type": "qwen2",
  "vocab_size": 151674,
  "hidden_size": 896,
  "intermediate_size": 4864,
  "num_hidden_layers": 24,
  "num_attention_heads": 14,
  "num_key_value_heads": 2,
}
INTERN_VIT_6B = {
  "hidden_size": 3200,
  "intermediate_size": 12800,
  "num_hidden_layers": 45,
  "num_attention_heads": 25,
  "norm_type": "rms_norm",
  "use_qk_norm": True,
}
MISTRAL_NEMO = {
  "model_type": "mistral",
  "vocab_size": 131072,
  "hidden_size": 5120,
  "intermediate_size": 14336,
  "num_hidden_layers": 40,
  "num_attention_heads": 32,
  "num_key_value_heads": 8,
  "head_dim": 128,
  "sliding_window": None,
}
WHOLE = {
  "InternVL3-1B": lambda: transformers.InternVLConfig(
    vision_config={"attention_bias": True}, text_config=QWEN2_05B
  ),
  "InternVL3.5-8B": CASES["internvl"],
  "InternViT-6B": lambda: transformers.InternVLConfig(
    vision_config=INTERN_VIT_6B, text_config=QWEN3_8B
  ),
  "llava-v1.6-mistral-7b": CASES["llava_next"],
  "llava-onevision-qwen2-0.5b": lambda: transformers.LlavaOnevisionConfig(
    text_config={**QWEN2_05B, "vocab_size": 152000}
  ),
  "pixtral-12b": lambda: transformers.LlavaConfig(
    vision_config={"model_type": "pixtral", "hidden_act": "silu"},
    text_config=MISTRAL_NEMO,
    vision_feature_layer=-1,
    vision_feature_select_strategy="full",
  ),
  "Mistral-Small-3.1-24B": transformers.Mistral3Config,
  "Ministral-3-8B": lambda: transformers.Mistral3Config(
    text_config={"model_type": "ministral3"}
  ),
}
PATCHES = {"InternVL": 256, "InternVi": 256, "llava-v1": 576, "llava-on": 729}
PATCHES |= {"pixtral-": 1, "Mistral-": 1, "Ministra": 1}


@pytest.mark.parametrize("name", WHOLE)
def test_every_tensor_of_other_families_has_its_place(name):
  hf_config = WHOLE[name]()
  hf_config.tie_word_embeddings = False
  family = find_family(hf_config)
  config = MllmConfig(
    family.read_tower(hf_config.vision_config),
    family.read_decoder(hf_config.text_config, tied=False),
    **family.read(hf_config),
  )
  assert config.patches == PATCHES[name[:8]]
  with torch.device("meta"):
    model = transformers.AutoModelForImageTextToText.from_config(hf_config)
  theirs = {
    tensor_names.canonical_name(key, config.vision.names): tuple(value.shape)
    for key, value in model.state_dict().items()
  }
  leaves = list(mapping.list_leaves(config))
  assert {name: leaf.shape for leaf in leaves for name in leaf.names} == theirs
