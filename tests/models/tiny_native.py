"""What a tiny base of Qwen2-VL, Qwen2.5-VL or Qwen3-VL is made of; see `tiny`.

A tile, which is one token, has 8 x 8 pixels, and a window 2 x 2 tiles.
"""

from typing import Any, NamedTuple

import transformers

from tests.data.qwen_vl_chats import CONTENT, END, PAD, SOURCES, START

# In the order of their ids, from 0.
SPECIAL = ("<unk>", "<s>", "<|im_end|>", "<pad>", PAD, START, END, "<|im_start|>")
SPECIAL += ("<|video_pad|>", *CONTENT)
SIDE = 8
LEAST, MOST = 4 * SIDE**2, 24 * SIDE**2  # pixels of an image


class Native(NamedTuple):
  """A family's transformers config, and fields of its parts."""

  config: Any
  sections: tuple[int, int, int]
  vision: dict[str, Any]
  text: dict[str, Any]


_OWN = {"hidden_size": 16, "intermediate_size": 20, "out_hidden_size": 32}
NATIVE = {
  "qwen2_vl": Native(
    transformers.Qwen2VLConfig,
    (2, 1, 1),
    {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2},
    {},
  ),
  "qwen2_5_vl": Native(
    transformers.Qwen2_5_VLConfig,
    (1, 2, 1),
    {**_OWN, "window_size": 2 * SIDE, "fullatt_block_indexes": [1]},
    {},
  ),
  "qwen3_vl": Native(
    transformers.Qwen3VLConfig,
    (2, 1, 1),
    {**_OWN, "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 1]},
    {"head_dim": 8},
  ),
}


def make_native_config(
  family: str, text: dict[str, Any], vision: dict[str, Any], whole: dict[str, Any]
) -> Any:
  """The config; the arguments are fields of its parts beside those of the family."""
  native = NATIVE[family]
  rope = {"rope_type": "default", "rope_theta": 1e4}
  vision = {
    "depth": 3,
    "num_heads": 2,
    "patch_size": SIDE // 2,
    **native.vision,
    **vision,
  }
  text = {
    "rope_parameters": {**rope, "mrope_section": list(native.sections)},
    **native.text,
    **text,
  }
  marks = {"image": PAD, "vision_start": START, "vision_end": END}
  ids = {f"{name}_token_id": SPECIAL.index(token) for name, token in marks.items()}
  return native.config(
    vision_config=vision,
    text_config=text,
    **ids,
    video_token_id=SPECIAL.index("<|video_pad|>"),
    tie_word_embeddings=text.get("tie_word_embeddings", False),
    **whole,
  )


def make_native_tokenizer(core: Any, family: str) -> Any:
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


def make_native_processor(hf_config: Any) -> Any:
  """The image processor of the config's family."""
  return transformers.models.qwen2_vl.Qwen2VLImageProcessorPil(
    size={"shortest_edge": LEAST, "longest_edge": MOST},
    patch_size=hf_config.vision_config.patch_size,
  )
