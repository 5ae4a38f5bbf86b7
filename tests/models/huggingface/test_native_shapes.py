"""Exports of published Qwen-VL and GLM-4.1V, tensor by tensor, with nothing held."""

import json
import math

import jax
import pytest
import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

from mllm_selector_jax import sharding
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.huggingface import mapping, model_parts
from mllm_selector_jax.models.huggingface.writer import _describe_model
from tests.models import packed
from tests.models.huggingface.qwen3_5_config import QWEN3_5
from tests.models.huggingface.test_native_parity import read

QWEN2 = {
  "architectures": ["Qwen2VLForConditionalGeneration"],
  "bos_token_id": 151643,
  "eos_token_id": 151645,
  "vision_start_token_id": 151652,
  "vision_end_token_id": 151653,
  "image_token_id": 151655,
  "video_token_id": 151656,
  "hidden_act": "silu",
  "max_position_embeddings": 32768,
  "model_type": "qwen2_vl",
  "rms_norm_eps": 1e-06,
  "rope_theta": 1000000.0,
  "sliding_window": 32768,
  "use_sliding_window": False,
  "torch_dtype": "bfloat16",
  "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
SMALL = {
  "hidden_size": 1536,
  "intermediate_size": 8960,
  "num_attention_heads": 12,
  "num_hidden_layers": 28,
  "num_key_value_heads": 2,
  "max_window_layers": 28,
  "vocab_size": 151936,
  "tie_word_embeddings": True,
}
MEDIUM = {
  "hidden_size": 2048,
  "intermediate_size": 11008,
  "num_attention_heads": 16,
  "num_hidden_layers": 36,
  "num_key_value_heads": 2,
  "max_window_layers": 70,
  "vocab_size": 151936,
  "tie_word_embeddings": True,
}
LARGE = {
  "hidden_size": 3584,
  "intermediate_size": 18944,
  "num_attention_heads": 28,
  "num_hidden_layers": 28,
  "num_key_value_heads": 4,
  "max_window_layers": 28,
  "vocab_size": 152064,
  "tie_word_embeddings": False,
}
QWEN2_5 = {
  **QWEN2,
  "architectures": ["Qwen2_5_VLForConditionalGeneration"],
  "model_type": "qwen2_5_vl",
  "max_position_embeddings": 128000,
}
WINDOWED = {
  "depth": 32,
  "hidden_act": "silu",
  "hidden_size": 1280,
  "intermediate_size": 3420,
  "num_heads": 16,
  "in_chans": 3,
  "patch_size": 14,
  "spatial_merge_size": 2,
  "spatial_patch_size": 14,
  "window_size": 112,
  "fullatt_block_indexes": [7, 15, 23, 31],
  "tokens_per_second": 2,
  "temporal_patch_size": 2,
}
PLAIN = {
  "depth": 32,
  "embed_dim": 1280,
  "mlp_ratio": 4,
  "num_heads": 16,
  "in_chans": 3,
  "patch_size": 14,
  "spatial_merge_size": 2,
  "spatial_patch_size": 14,
  "temporal_patch_size": 2,
}
QWEN3 = {
  "architectures": ["Qwen3VLForConditionalGeneration"],
  "image_token_id": 151655,
  "model_type": "qwen3_vl",
  "text_config": {
    "attention_bias": False,
    "bos_token_id": 151643,
    "dtype": "bfloat16",
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "max_position_embeddings": 262144,
    "model_type": "qwen3_vl_text",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
      "mrope_interleaved": True,
      "mrope_section": [24, 20, 20],
      "rope_type": "default",
    },
    "rope_theta": 5000000,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
  },
  "tie_word_embeddings": True,
  "video_token_id": 151656,
  "vision_config": {
    "deepstack_visual_indexes": [5, 11, 17],
    "depth": 24,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 1024,
    "in_channels": 3,
    "intermediate_size": 4096,
    "model_type": "qwen3_vl",
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "out_hidden_size": 2560,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
  },
  "vision_end_token_id": 151653,
  "vision_start_token_id": 151652,
}
GLM4V = {
  "architectures": ["Glm4vForConditionalGeneration"],
  "model_type": "glm4v",
  "image_start_token_id": 151339,
  "image_end_token_id": 151340,
  "video_start_token_id": 151341,
  "video_end_token_id": 151342,
  "image_token_id": 151343,
  "video_token_id": 151344,
  "tie_word_embeddings": False,
  "text_config": {
    "model_type": "glm4v_text",
    "attention_dropout": 0.0,
    "pad_token_id": 151329,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 13696,
    "max_position_embeddings": 65536,
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"rope_type": "default", "mrope_section": [8, 12, 12]},
    "rope_theta": 10000.0,
    "use_cache": True,
    "vocab_size": 151552,
  },
  "vision_config": {
    "hidden_size": 1536,
    "depth": 24,
    "num_heads": 12,
    "attention_bias": False,
    "intermediate_size": 13696,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "image_size": 336,
    "patch_size": 14,
    "out_hidden_size": 4096,
    "rms_norm_eps": 1e-05,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
  },
}
QWEN3_EXPERTS = {
  **QWEN3,
  "architectures": ["Qwen3VLMoeForConditionalGeneration"],
  "model_type": "qwen3_vl_moe",
  "text_config": {
    **QWEN3["text_config"],
    "decoder_sparse_step": 1,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "mlp_only_layers": [],
    "model_type": "qwen3_vl_moe_text",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
  },
  "tie_word_embeddings": False,
  "vision_config": {
    **QWEN3["vision_config"],
    "deepstack_visual_indexes": [8, 16, 24],
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "model_type": "qwen3_vl_moe",
    "out_hidden_size": 2048,
  },
}
# config.json as it is published, and the parameters that the files hold.
PUBLISHED = {
  "Qwen2-VL-2B": (
    {**QWEN2, **SMALL, "vision_config": {**PLAIN, "hidden_size": 1536}},
    2_208_985_600,
  ),
  "Qwen2-VL-7B": (
    {**QWEN2, **LARGE, "vision_config": {**PLAIN, "hidden_size": 3584}},
    8_291_375_616,
  ),
  "Qwen2.5-VL-3B": (
    {**QWEN2_5, **MEDIUM, "vision_config": {**WINDOWED, "out_hidden_size": 2048}},
    3_754_622_976,
  ),
  "Qwen2.5-VL-7B": (
    {**QWEN2_5, **LARGE, "vision_config": {**WINDOWED, "out_hidden_size": 3584}},
    8_292_166_656,
  ),
  "Qwen3-VL-4B": (QWEN3, 4_437_815_808),
  "Qwen3.5": (QWEN3_5, 9_409_813_744),
  "GLM-4.1V-9B": (GLM4V, 10_292_777_472),
  "Qwen3-VL-30B-A3B": (QWEN3_EXPERTS, 31_070_754_032),
}


def read_published(folder, value):
  """The transformers config of a folder that has this config.json, and ours."""
  (folder / "config.json").write_text(json.dumps(value))
  hf_config = model_parts.find_parts(folder).config
  return hf_config, read(hf_config)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_export_has_the_published_tensors(tmp_path, name):
  value, total = PUBLISHED[name]
  hf_config, config = read_published(tmp_path, value)
  with torch.device("meta"):
    model = transformers.AutoModelForImageTextToText.from_config(hf_config)
  theirs = {
    key: tuple(tensor.shape)
    for key, tensor in revert_weight_conversion(model, model.state_dict()).items()
  }
  if config.decoder.tied:
    del theirs["lm_head.weight"]
  for key, shape in theirs.items():
    if ".experts." in key:  # published, and in version 4, transposed
      theirs[key] = (shape[0], shape[2], shape[1])
  stored = mapping.list_stored(config)
  assert {one.name: one.shape for one in stored} == theirs
  assert sum(one.size for one in stored) == total
  start = "visual." if "Qwen2" in name else "model.visual."
  assert start + "blocks.0.attn.qkv.weight" in theirs


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_export_s_config_means_what_the_published_one_does(tmp_path, name):
  value, _ = PUBLISHED[name]
  hf_config, config = read_published(tmp_path, value)
  described = _describe_model(hf_config)
  again, same = read_published(tmp_path, described)
  assert same == config and again.to_dict() == hf_config.to_dict() | {
    "architectures": again.architectures,
    **{key: again.to_dict()[key] for key in ("dtype", "text_config", "vision_config")},
  }
  # What version 4 of transformers, vLLM and others read stands where they look for it.
  for key, wanted in value.items():
    if key in ("torch_dtype", "max_window_layers", "sliding_window"):
      continue
    if key.endswith("_config"):
      assert (
        described[key].items()
        >= {
          inner: item
          for inner, item in wanted.items()
          if inner not in ("dtype", "in_chans", "spatial_patch_size")
        }.items()
      )
    else:
      assert described[key] == wanted, key


@pytest.mark.parametrize(
  "name", ["Qwen2.5-VL-7B", "Qwen3-VL-4B", "Qwen3-VL-30B-A3B", "GLM-4.1V-9B", "Qwen3.5"]
)
def test_the_published_models_are_cut_evenly(tmp_path, name):
  _, config = read_published(tmp_path, PUBLISHED[name][0])
  abstract = mllm.abstract(config)
  mesh = sharding.make_mesh(1, 8, 1)
  layout = sharding.parameter_shardings(abstract, logical_axes(abstract), mesh)
  total = held = 0
  for leaf, own in zip(jax.tree.leaves(abstract), jax.tree.leaves(layout), strict=True):
    total += math.prod(leaf.shape)
    held += math.prod(own.shard_shape(leaf.shape))
  assert held * 8 < 1.01 * total


def test_shapes_flow_through_the_seven_billion(tmp_path):
  _, config = read_published(tmp_path, PUBLISHED["Qwen2.5-VL-7B"][0])
  hidden = packed.trace_hidden_states(config, 2048, tiles=300)
  assert hidden.shape == (2, 2048, 3584)
