"""Tiny models of LLaVA's families, chosen and drawn: overrides of `tiny.make_base`."""

from hypothesis import strategies as st

CASES = {
  "grouped": {},
  "tied": {
    "tie_word_embeddings": True,
    "hidden_size": 48,
    "num_attention_heads": 2,
    "vision_hidden_act": "gelu",
    "llava_vision_feature_layer": -1,
  },
  "one key head": {
    "num_key_value_heads": 1,
    "head_dim": 12,
    "num_hidden_layers": 3,
    "vision_num_hidden_layers": 3,
    "vision_image_size": 24,
    "vision_patch_size": 6,
    "llava_vision_feature_layer": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
  },
  "llama with biases": {"attention_bias": True},
  "class token kept": {"llava_vision_feature_select_strategy": "full"},
  "mistral": {"decoder": "mistral", "sliding_window": 6},
  "qwen2": {"decoder": "qwen2", "rms_norm_eps": 1e-6},
  "qwen3": {"decoder": "qwen3", "head_dim": 12, "attention_bias": True},
  "qwen2 with windows in some layers": {
    "decoder": "qwen2",
    "num_hidden_layers": 3,
    "use_sliding_window": True,
    "sliding_window": 5,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
  },
  "gemma3": {
    "decoder": "gemma3_text",
    "num_hidden_layers": 3,
    "head_dim": 12,
    "query_pre_attn_scalar": 10,
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
      "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
      "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    },
    "tie_word_embeddings": True,
    "tower": "siglip_vision_model",
    "llava_vision_feature_layer": -1,
  },
  "phi3": {
    "decoder": "phi3",
    "num_hidden_layers": 3,
    "sliding_window": 6,
    "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
  },
  "phi3, longrope": {
    "decoder": "phi3",
    "hidden_size": 48,
    "tie_word_embeddings": True,
    "original_max_position_embeddings": 64,
    "rope_parameters": {
      "rope_type": "longrope",
      "rope_theta": 1e4,
      "short_factor": [1.0, 1.1, 1.3],
      "long_factor": [1.0, 3.0, 9.0],
      "partial_rotary_factor": 0.5,
    },
    "tower": "siglip_vision_model",
    "llava_vision_feature_layer": -1,
  },
  "granite": {
    "decoder": "granite",
    "attention_bias": True,
    "attention_multiplier": 0.25,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.4,
    "tie_word_embeddings": True,
    "tower": "siglip_vision_model",
    "vision_num_hidden_layers": 4,
    "llava_vision_feature_layer": [-4, -2, -1],
  },
  "glm4": {
    "decoder": "glm4",
    "head_dim": 12,
    "attention_bias": True,
    "num_hidden_layers": 3,
    "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5},
  },
  "qwen3, dinov2": {
    "decoder": "qwen3",
    "head_dim": 8,
    "tower": "dinov2",
    "tie_word_embeddings": True,
    "llava_vision_feature_layer": -1,
  },
  "internvl": {"family": "internvl", "decoder": "qwen2"},
  "internvl 6b": {
    "family": "internvl",
    "decoder": "qwen3",
    "head_dim": 8,
    "vision_norm_type": "rms_norm",
    "vision_use_qk_norm": True,
  },
  "several layers": {
    "vision_num_hidden_layers": 6,
    "llava_vision_feature_layer": [-2, 0, 3, -6],
  },
  "vipllava": {"family": "vipllava"},
  "vipllava, one layer": {
    "family": "vipllava",
    "decoder": "mistral",
    "tower": "siglip_vision_model",
    "llava_vision_feature_layer": -2,
    "llava_projector_layernorm_eps": 0.1,
  },
  "qwen2 tied, siglip": {
    "decoder": "qwen2",
    "tower": "siglip_vision_model",
    "tie_word_embeddings": True,
    "llava_vision_feature_layer": -1,
  },
  # As google/siglip-so400m-patch14-384: the last pixels make no whole patch.
  "siglip with pixels left over": {
    "tower": "siglip_vision_model",
    "vision_image_size": 30,
    "llava_vision_feature_layer": -1,
  },
  "clip with pixels left over": {"vision_image_size": 39, "vision_patch_size": 10},
  "siglip without its first patch": {
    "tower": "siglip_vision_model",
    "llava_vision_feature_select_strategy": "default",
  },
}


@st.composite
def overrides(draw):
  """Any tiny model of the supported families."""

  def one(*values):
    return draw(st.sampled_from(values))

  decoder = one(
    *("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi3", "granite", "glm4")
  )
  tower = one("clip_vision_model", "siglip_vision_model", "dinov2", "internvl_vision")
  kv_heads, head_dim, vision_layers = one(1, 2), one(8, 12), one(1, 2, 3)
  scaling = draw(st.sampled_from([{"rope_type": "default"}, *SCALINGS]))
  # A list may have 0; alone, it takes another way in transformers 5.23, which fails.
  number = st.integers(-vision_layers - 1, vision_layers)
  layer = draw(number.filter(bool) | st.lists(number, min_size=1, max_size=4))
  found = {
    "family": one("llava", "vipllava"),
    "decoder": decoder,
    "tower": tower,
    "hidden_size": 24 if decoder != "qwen2" else 4 * head_dim,
    "num_attention_heads": 4 if decoder == "qwen2" else kv_heads * one(1, 2, 3),
    "num_key_value_heads": kv_heads,
    "num_hidden_layers": one(1, 2, 3),
    "intermediate_size": one(20, 48),
    "tie_word_embeddings": draw(st.booleans()),
    "rope_parameters": {"rope_theta": one(100.0, 1e4, 1e6), **scaling},
    "vision_num_hidden_layers": vision_layers,
    "vision_hidden_act": one("quick_gelu", "gelu", "gelu_pytorch_tanh"),
    "vision_patch_size": one(8, 9, 16),
    "llava_vision_feature_layer": layer,
    "llava_vision_feature_select_strategy": one("default", "full"),
  }
  if found["family"] == "vipllava":
    found["llava_projector_layernorm_eps"] = one(1e-5, 1e-6, 1e-2)
  if decoder != "qwen2":
    found["head_dim"] = head_dim
  if decoder in ("llama", "qwen3", "gemma3_text", "granite", "glm4"):
    found["attention_bias"] = draw(st.booleans())
  if decoder in ("qwen2", "qwen3", "gemma3_text"):
    kind = st.sampled_from(["full_attention", "sliding_attention"])
    layers = found["num_hidden_layers"]
    found["layer_types"] = draw(st.lists(kind, min_size=layers, max_size=layers))
    found |= {"use_sliding_window": True, "sliding_window": one(5, 64)}
  if decoder == "gemma3_text":
    del found["use_sliding_window"]
    found["query_pre_attn_scalar"] = one(head_dim, 7)
    found["rope_parameters"] = {
      "full_attention": found["rope_parameters"],
      "sliding_attention": {"rope_type": "default", "rope_theta": one(50.0, 1e4)},
    }
  if decoder == "granite":
    names = ("attention", "embedding", "residual")
    found |= {f"{name}_multiplier": one(0.5, 1.0, 2.0) for name in names}
  if decoder in ("phi3", "glm4"):
    # Of phi3's configs, transformers computes the channels that turn without head_dim.
    found["hidden_size"] = found["num_attention_heads"] * head_dim
    found["rope_parameters"] = draw_partial(one, found["rope_parameters"], decoder)
  if decoder in ("mistral", "phi3"):
    found["sliding_window"] = one(None, 5, 64)
  if tower == "dinov2":
    found["vision_qkv_bias"] = draw(st.booleans())
    found["vision_use_mask_token"] = draw(st.booleans())
  if tower == "internvl_vision":
    found |= {
      "vision_attention_bias": draw(st.booleans()),
      "vision_use_qk_norm": draw(st.booleans()),
      "vision_norm_type": one("layer_norm", "rms_norm"),
      "vision_use_mean_pooling": draw(st.booleans()),
    }
  return found


def draw_partial(one, rope, decoder):
  """Rotary parameters by which a part of 8 or 12 channels turn, or all."""
  if decoder == "phi3":
    rope = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
  return {**rope, "partial_rotary_factor": one(0.5, 1.0)}


# Of the kinds that stretch a context; parameters as published ones have them.
SCALINGS = (
  {"rope_type": "linear", "factor": 4.0},
  {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64},
  {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
  },
)
