"""Fields of tiny models of Gemma 4, as `tiny.make_hf_config` has them."""

from typing import Any

DENSE: dict[str, Any] = {
  "decoder": "gemma4_text",
  "num_hidden_layers": 3,
  "head_dim": 8,
  "global_head_dim": 12,
  "num_global_key_value_heads": 1,
  "attention_k_eq_v": True,
  "hidden_size_per_layer_input": 0,
  "final_logit_softcapping": 3.0,
  "vision_hidden_size": 16,
  "vision_num_key_value_heads": 2,
  "vision_head_dim": 8,
  "vision_intermediate_size": 20,
  "vision_patch_size": 2,
  "vision_position_embedding_size": 256,
  "vision_standardize": True,
  "use_bidirectional_attention": "vision",
  "sliding_window": 30,  # fewer than an image's tokens
  "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
  "rope_parameters": {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {
      "rope_type": "proportional",
      "partial_rotary_factor": 0.5,
      "rope_theta": 1e6,
    },
  },
}
# As E2B: two layers with keys and values, and two that read theirs.
E2B = {
  **DENSE,
  "num_hidden_layers": 4,
  "layer_types": ["sliding_attention", "full_attention"] * 2,
  "num_kv_shared_layers": 2,
  "use_double_wide_mlp": True,
  "hidden_size_per_layer_input": 8,
  "vocab_size_per_layer_input": 320,
  "attention_k_eq_v": False,
  "use_bidirectional_attention": None,
  "num_key_value_heads": 1,
  "vision_standardize": False,
  "vision_use_clipped_linears": True,
}
