"""A tiny base directory in LLaVA form, made on the spot, without torch."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from mllm_selector_jax.models import huggingface
from tests.models import tiny_gemma, tiny_qwen

SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
IMAGE_TOKENS = ("<image>", "<IMG_CONTEXT>", "[IMG]", "<image_soft_token>", "<|image|>")
SENTENCES = (
  "A chat between a curious user and an artificial intelligence assistant. The"
  " assistant gives helpful, detailed, and polite answers to the user's questions.",
  " USER: What is the shape in the picture? ASSISTANT: circle",
  "Answer the question using a single word or phrase.",
  "How many red squares are there? two three four five six seven eight nine",
  "Which colour is it? red green blue yellow black white grey orange purple",
  "Is there a triangle left of the rectangle? yes no",
  "What does the text say? What is the value of the bar named A?",
)


def make_tokenizer(
  vocab: int = 300, special: tuple[str, ...] = SPECIAL
) -> transformers.PreTrainedTokenizerFast:
  """A byte-level BPE tokenizer of at most `vocab` tokens, the special ones first.

  By default <image> is at id 4.
  """
  core = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
  core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  core.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=vocab,
    special_tokens=list(special),
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  core.train_from_iterator(SENTENCES * 4, trainer)
  core.post_processor = processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 1)]
  )
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=core,
    unk_token="<unk>",
    bos_token="<s>",
    eos_token="</s>",
    pad_token="<pad>" if "<pad>" in special else None,
    additional_special_tokens=[name for name in special if name in IMAGE_TOKENS],
    model_max_length=256,
  )


class Family(NamedTuple):
  """Defaults of a family of whole models.

  Attributes:
    config: its transformers config.
    fields: of the whole that differ from LLaVA's.
    tower: the model_type of its vision tower.
    token: the text of the image token.
    marks: the tokens around and inside an image.
    text: fields of its decoder's config, and `decoder`, its model_type.
  """

  config: Any
  fields: dict[str, Any]
  tower: str = "clip_vision_model"
  token: str = "<image>"
  marks: tuple[str, ...] = ()
  text: Mapping[str, Any] = MappingProxyType({})


AROUND = "<fake_token_around_image>"
TAGS = tuple(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2))
_PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
FAMILIES = {
  "llava": Family(transformers.LlavaConfig, {"image_token_index": 4}),
  "internvl": Family(
    transformers.InternVLConfig,
    {"image_token_id": 4, "downsample_ratio": 0.5, "vision_feature_layer": -1},
    "internvl_vision",
    "<IMG_CONTEXT>",
    ("<img>", "</img>"),
  ),
  "llava_next": Family(
    transformers.LlavaNextConfig,
    {"image_token_index": 4, "image_grid_pinpoints": _PINPOINTS},
  ),
  "llava_onevision": Family(
    transformers.LlavaOnevisionConfig,
    {
      "image_token_index": 4,
      "image_grid_pinpoints": _PINPOINTS,
      "vision_aspect_ratio": "anyres_max_1",
      "vision_feature_layer": -1,
    },
    "siglip_vision_model",
  ),
  "vipllava": Family(
    transformers.VipLlavaConfig,
    {"image_token_index": 4, "vision_feature_layer": [-1, 1]},
  ),
  "pixtral": Family(
    transformers.LlavaConfig,
    {
      "image_token_index": 4,
      "vision_feature_layer": -1,
      "vision_feature_select_strategy": "full",
    },
    "pixtral",
    "[IMG]",
    ("[IMG_BREAK]", "[IMG_END]"),
  ),
  "mistral3": Family(
    transformers.Mistral3Config,
    {"image_token_index": 4, "vision_feature_layer": -1},
    "pixtral",
    "[IMG]",
    ("[IMG_BREAK]", "[IMG_END]"),
  ),
  # The marks of tiles are ordinary text, as in the published tokenizer.
  "idefics3": Family(
    transformers.Idefics3Config,
    {"image_token_id": 4, "scale_factor": 2},
    "idefics3_vision",
    marks=(AROUND,),
  ),
  "smolvlm": Family(
    transformers.SmolVLMConfig,
    {"image_token_id": 4, "scale_factor": 2},
    "smolvlm_vision",
    marks=(AROUND, "<global-img>", *TAGS),
  ),
  "gemma3": Family(
    transformers.Gemma3Config,
    {
      "image_token_index": 4,
      "boi_token_index": 5,
      "eoi_token_index": 6,
      "mm_tokens_per_image": 4,
    },
    "siglip_vision_model",
    "<image_soft_token>",
    ("<start_of_image>", "<end_of_image>"),
    {
      "decoder": "gemma3_text",
      "num_hidden_layers": 3,
      "head_dim": 8,
      "query_pre_attn_scalar": 10,
      "sliding_window": 3,  # fewer than an image's tokens
      "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
  ),
}
SOFT_TOKENS = 70  # of an image of Gemma 4, the fewest that its processor allows
FAMILIES["gemma4"] = Family(
  transformers.Gemma4Config,
  {"image_token_id": 4, "boi_token_id": 5, "eoi_token_id": 6, "audio_config": None},
  "gemma4_vision",
  "<|image|>",
  ("<|image>", "<image|>"),
  tiny_gemma.DENSE,
)
FAMILIES["gemma4e"] = FAMILIES["gemma4"]._replace(text=tiny_gemma.E2B)
MARKED = ("idefics3", "smolvlm")  # whose tiles have marks


def make_hf_config(**overrides: Any) -> transformers.LlavaConfig:
  """A model's config; overrides are fields of the text part, `vision_...`/`llava_...`.

  For example hidden_size=64, vision_hidden_act="gelu",
  llava_vision_feature_layer=-1. The families are chosen by decoder="qwen2",
  tower="siglip_vision_model" and family="internvl". Those of Qwen-VL have a decoder
  and a tower of their own.
  """
  if overrides.get("family") in tiny_qwen.FAMILIES:
    overrides.pop("decoder", None)
    return tiny_qwen.make_hf_config(**overrides)
  family = FAMILIES[overrides.pop("family", "llava")]
  overrides = {**family.text, **overrides}
  decoder = overrides.pop("decoder", "llama")
  tower = overrides.pop("tower", family.tower)

  def part(prefix: str) -> dict[str, Any]:
    return {
      key.removeprefix(prefix): overrides.pop(key)
      for key in list(overrides)
      if key.startswith(prefix)
    }

  vision = {
    "hidden_size": 32,
    **({} if tower == "dinov2" else {"intermediate_size": 64}),
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    **({"projection_dim": 32} if tower.startswith("clip") else {}),
    **part("vision_"),
  }
  class_token = not tower.startswith("siglip")
  given = part("llava_")
  llava = {
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default" if class_token else "full",
    **family.fields,
    **given,
  }
  places = (vision["image_size"] // vision["patch_size"]) ** 2
  places += class_token
  places -= llava["vision_feature_select_strategy"] == "default"
  if family.config in (transformers.VipLlavaConfig, transformers.Mistral3Config):
    del llava["vision_feature_select_strategy"]  # they have no such field
  if family.config.model_type in (*MARKED, "gemma3", "gemma4"):
    llava = {**family.fields, **given}
  if "image_seq_length" in family.config.__dataclass_fields__:
    merged = round(1 / llava.get("downsample_ratio", 1)) ** 2
    llava["image_seq_length"] = 1 if tower == "pixtral" else places // merged
  text = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
    **overrides,
  }
  return family.config(
    vision_config=transformers.AutoConfig.for_model(tower, **vision),
    text_config=transformers.AutoConfig.for_model(decoder, **text),
    tie_word_embeddings=text.get("tie_word_embeddings", False),
    **llava,
  )


def make_image_processor(side: int = 32, **overrides: Any) -> Any:
  """LLaVA's image processor (Pillow form), padding to a square."""
  options = {
    "do_pad": True,
    "size": {"shortest_edge": side},
    "crop_size": {"height": side, "width": side},
    **overrides,
  }
  return transformers.models.llava.LlavaImageProcessorPil(**options)


def make_family_processor(hf_config: Any) -> Any:
  """The image processor of the config's family."""
  models = transformers.models
  if hf_config.model_type in tiny_qwen.FAMILIES:
    return tiny_qwen.make_image_processor(hf_config)
  side = hf_config.vision_config.image_size
  side = side if isinstance(side, int) else side[0]
  square = {"height": side, "width": side}
  if hf_config.model_type == "internvl":
    return models.got_ocr2.GotOcr2ImageProcessorPil(size=square)
  if hf_config.vision_config.model_type == "pixtral":
    patch = hf_config.vision_config.patch_size
    return models.pixtral.PixtralImageProcessorPil(
      size={"longest_edge": 2 * side}, patch_size={"height": patch, "width": patch}
    )
  if hf_config.model_type in MARKED:
    kinds = {
      "idefics3": models.idefics3.Idefics3ImageProcessorPil,
      "smolvlm": models.smolvlm.SmolVLMImageProcessorPil,
    }
    return kinds[hf_config.model_type](
      size={"longest_edge": 2 * side}, max_image_size={"longest_edge": side}
    )
  if hf_config.model_type == "gemma4":
    patch = hf_config.vision_config.patch_size
    return models.gemma4.Gemma4ImageProcessorPil(
      patch_size=patch, max_soft_tokens=SOFT_TOKENS
    )
  if hf_config.model_type == "gemma3":
    return models.gemma3.Gemma3ImageProcessorPil(size=square)
  grids = getattr(hf_config, "image_grid_pinpoints", None)
  if hf_config.model_type == "llava_next":
    return models.llava_next.LlavaNextImageProcessorPil(
      size={"shortest_edge": side}, crop_size=square, image_grid_pinpoints=grids
    )
  if hf_config.model_type == "llava_onevision":
    return models.llava_onevision.LlavaOnevisionImageProcessorPil(
      size=square, image_grid_pinpoints=grids
    )
  return make_image_processor(side)


def make_base(folder: str | os.PathLike, seed: int = 0, **overrides: Any) -> Path:
  """Writes the directory; see `make_hf_config` for the overrides.

  By default: 32 x 32 images, 16 patches, width 32, two layers, four query and
  two key-value heads, 320 token ids, <image> = 4.
  """
  family = overrides.get("family", "llava")
  hf_config = make_hf_config(**overrides)
  vocab = min(300, hf_config.text_config.vocab_size)
  if family in tiny_qwen.FAMILIES:
    core = make_tokenizer(vocab, tiny_qwen.list_special(family)).backend_tokenizer
    tokenizer = tiny_qwen.make_tokenizer(core, family)
  else:
    own = FAMILIES[family]
    tokenizer = make_tokenizer(vocab, (*SPECIAL[:4], own.token, *own.marks))
  huggingface.write_fresh(
    folder, hf_config, tokenizer, make_family_processor(hf_config), seed
  )
  return Path(folder)
