"""What tiny bases of Qwen's models of native resolution are made of.

A tile, which is one token, has 8 x 8 pixels, and a window 2 x 2 tiles.
"""

from typing import Any

import transformers

from tests.data.qwen_vl_chats import CONTENT, END, PAD, SOURCES, START

# In the order of their ids, from 0.
SPECIAL = ("<unk>", "<s>", "<|im_end|>", "<pad>", PAD, START, END, "<|im_start|>")
SPECIAL += ("<|video_pad|>", *CONTENT)
IMAGE = SPECIAL.index(PAD)
FAMILIES = {
  "qwen2_vl": transformers.Qwen2VLConfig,
  "qwen2_5_vl": transformers.Qwen2_5_VLConfig,
  "qwen3_vl": transformers.Qwen3VLConfig,
  "qwen3_5": transformers.Qwen3_5Config,
}
TEXT = {
  "vocab_size": 320,
  "hidden_size": 32,
  "intermediate_size": 48,
  "num_hidden_layers": 3,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "max_position_embeddings": 512,
  "rms_norm_eps": 1e-5,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "pad_token_id": 3,
}
VISION = {"num_heads": 2, "patch_size": 4}
# What differs from these in text and vision.
OWN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
  "qwen2_vl": ({}, {"depth": 2, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}),
  "qwen2_5_vl": (
    {},
    {
      "depth": 3,
      "hidden_size": 16,
      "intermediate_size": 20,
      "window_size": 16,
      "fullatt_block_indexes": [1],
      "out_hidden_size": 32,
    },
  ),
  "qwen3_vl": (
    {"head_dim": 8},
    {
      "depth": 3,
      "hidden_size": 16,
      "intermediate_size": 20,
      "num_position_embeddings": 25,
      "deepstack_visual_indexes": [0, 1],
      "out_hidden_size": 32,
    },
  ),
  "qwen3_5": (
    {
      "num_hidden_layers": 4,
      "head_dim": 16,
      # Answers near 0 pass a norm, which makes rounding large where this is small.
      "rms_norm_eps": 0.1,
      "linear_key_head_dim": 16,
      "linear_value_head_dim": 12,
      "linear_num_key_heads": 2,
      "linear_num_value_heads": 4,
    },
    {
      "depth": 3,
      "hidden_size": 16,
      "intermediate_size": 20,
      "num_position_embeddings": 25,
      "out_hidden_size": 32,
    },
  ),
}
SIDE = 8  # pixels along a tile
PIXELS = (4 * SIDE**2, 24 * SIDE**2)  # of an image: 4 to 24 tokens


def rope(*sections: int) -> dict[str, Any]:
  """Rotary parameters with these sections of half a head."""
  return {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(sections)}


def partial_rope(share: float, *sections: int) -> dict[str, Any]:
  """The same where only that share of a head's channels turns."""
  return {**rope(*sections), "partial_rotary_factor": share}


def name_layers(kinds: str) -> list[str]:
  """Layer types, from an "l" for each linear and an "f" for each full attention."""
  return [{"l": "linear", "f": "full"}[kind] + "_attention" for kind in kinds]


def make_hf_config(family: str, **overrides: Any) -> Any:
  """A config; overrides are fields of the text part, or `vision_...`."""
  text, vision = OWN[family]
  part = "vision_"
  seen = {
    key.removeprefix(part): value
    for key, value in overrides.items()
    if key.startswith(part)
  }
  read = {key: value for key, value in overrides.items() if not key.startswith(part)}
  tied = read.pop("tie_word_embeddings", False)
  turned = rope(*((1, 2, 1) if family == "qwen2_5_vl" else (2, 1, 1)))
  if family == "qwen3_5":
    turned = partial_rope(0.5, 2, 1, 1)
  return FAMILIES[family](
    vision_config={**VISION, **vision, **seen},
    text_config={**TEXT, "rope_parameters": turned, **text, **read},
    image_token_id=IMAGE,
    vision_start_token_id=IMAGE + 1,
    vision_end_token_id=IMAGE + 2,
    video_token_id=SPECIAL.index("<|video_pad|>"),
    tie_word_embeddings=tied,
  )


def make_tokenizer(core: Any, family: str) -> Any:
  """The tokenizer from a core with `SPECIAL`; no text begins with a BOS token."""
  core.post_processor = None
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=core,
    unk_token="<unk>",
    eos_token="<|im_end|>",
    pad_token="<pad>",
    additional_special_tokens=[*SPECIAL[4:]],
    model_max_length=1024,
  )
  tokenizer.chat_template = SOURCES[family]
  return tokenizer


def make_image_processor(hf_config: Any) -> Any:
  """The families' image processor (Pillow form)."""
  vision = hf_config.vision_config
  least, most = PIXELS
  return transformers.models.qwen2_vl.Qwen2VLImageProcessorPil(
    patch_size=vision.patch_size,
    merge_size=vision.spatial_merge_size,
    size={"shortest_edge": least, "longest_edge": most},
  )
