"""What tiny bases of models of native resolution are made of: Qwen's and GLM's.

A tile, which is one token, has 8 x 8 pixels, and a window 2 x 2 tiles.
"""

from typing import Any

import transformers

from tests.data import glm_chats
from tests.data.qwen_vl_chats import CONTENT, END, PAD, SOURCES, START

# In the order of their ids, from 0.
SPECIAL = ("<unk>", "<s>", "<|im_end|>", "<pad>", PAD, START, END, "<|im_start|>")
SPECIAL += ("<|video_pad|>", *CONTENT)
# The same places, of GLM-4.1V.
GLM = ("<unk>", "<s>", "<|endoftext|>", "<pad>", glm_chats.IMAGE, glm_chats.BEGIN)
GLM += (glm_chats.END, *glm_chats.VIDEO, *glm_chats.START, *glm_chats.ROLES)
IMAGE = SPECIAL.index(PAD)
FAMILIES = {
  "qwen2_vl": transformers.Qwen2VLConfig,
  "qwen2_5_vl": transformers.Qwen2_5_VLConfig,
  "qwen3_vl": transformers.Qwen3VLConfig,
  "qwen3_5": transformers.Qwen3_5Config,
  "glm4v": transformers.Glm4vConfig,
  "glm46v": transformers.Glm46VConfig,
  "qwen3_vl_moe": transformers.Qwen3VLMoeConfig,
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
  "glm4v": (
    {"num_attention_heads": 2, "num_key_value_heads": 1},
    {
      "depth": 3,
      "hidden_size": 16,
      "intermediate_size": 60,
      "image_size": 20,
      "out_hidden_size": 32,
    },
  ),
}
OWN["glm46v"] = OWN["glm4v"]
OWN["qwen3_vl_moe"] = (
  {
    "head_dim": 8,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 20,
  },
  OWN["qwen3_vl"][1],
)
SIDE = 8  # pixels along a tile
PIXELS = (4 * SIDE**2, 24 * SIDE**2)  # of an image: 4 to 24 tokens


def rope(*sections: int, **fields: Any) -> dict[str, Any]:
  """Rotary parameters with these sections of half a head, or of half of what turns."""
  own = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": list(sections)}
  return own | fields


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
  sections = (1, 2, 1) if family == "qwen2_5_vl" else (2, 1, 1)
  waves, marks = rope(*sections), ("vision_start", "vision_end")
  if family.startswith("glm4"):
    waves["partial_rotary_factor"] = 0.5
    marks = ("image_start", "image_end")
  if family == "qwen3_5":
    waves["partial_rotary_factor"] = 0.5
  return FAMILIES[family](
    vision_config={**VISION, **vision, **seen},
    text_config={**TEXT, "rope_parameters": waves, **text, **read},
    image_token_id=IMAGE,
    **{f"{mark}_token_id": IMAGE + 1 + n for n, mark in enumerate(marks)},
    video_token_id=SPECIAL.index("<|video_pad|>"),
    tie_word_embeddings=tied,
  )


def make_tokenizer(core: Any, family: str) -> Any:
  """The tokenizer from a core with the special tokens; no text begins with BOS."""
  core.post_processor = None
  special = list_special(family)
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=core,
    unk_token="<unk>",
    eos_token=special[2],
    pad_token="<pad>",
    additional_special_tokens=[*special[4:]],
    model_max_length=1024,
  )
  tokenizer.chat_template = SOURCES[family] if family in SOURCES else glm_chats.GLM4V
  return tokenizer


def list_special(family: str) -> tuple[str, ...]:
  """The special tokens in the order of their ids, from 0."""
  return GLM if family.startswith("glm4") else SPECIAL


def make_image_processor(hf_config: Any) -> Any:
  """The families' image processor (Pillow form)."""
  vision = hf_config.vision_config
  least, most = PIXELS
  kind, frames = transformers.models.qwen2_vl.Qwen2VLImageProcessorPil, 1
  if hf_config.model_type.startswith("glm4"):  # whose bounds count a patch's frames
    kind, frames = transformers.models.glm4v.Glm4vImageProcessorPil, 2
  return kind(
    patch_size=vision.patch_size,
    merge_size=vision.spatial_merge_size,
    size={"shortest_edge": frames * least, "longest_edge": frames * most},
  )
