"""Tiny bases of each family for whole runs, and the families' own processors."""

import json

import transformers

from tests import gemma3_files, gemma4_files, idefics3_files, pixtral_files
from tests.data.test_glm_chats import Glm4vProcessor, Glm46VProcessor
from tests.data.test_native_chats import PROCESSORS as NATIVE_PROCESSORS
from tests.data.test_several_images import make_messages
from tests.models import tiny, tiny_qwen
from tests.models.huggingface.test_image_options import (
  InternVLProcessor,
  LlavaOnevisionProcessor,
)

FAMILIES = {
  "llava": ("llama", "vicuna_v1"),
  "internvl": ("qwen2", "chatml"),
  "llava_next": ("llama", "vicuna_v1"),
  "llava_onevision": ("qwen2", "chatml"),
  "vipllava": ("llama", "vicuna_v1"),
  "pixtral": ("mistral", "vicuna_v1"),
  "mistral3": ("ministral3", "auto"),
  "qwen2_vl": ("qwen2", "auto"),
  "qwen2_5_vl": ("qwen2", "auto"),
  "qwen3_vl": ("qwen3", "auto"),
  "qwen3_5": ("qwen3_5_text", "auto"),
  "glm4v": ("glm4", "auto"),
  "glm46v": ("glm4", "auto"),
  "qwen3_vl_moe": ("qwen3", "auto"),
  "idefics3": ("llama", "auto"),
  "smolvlm": ("llama", "auto"),
  "gemma3": ("gemma3_text", "auto"),
  "gemma4": ("gemma4_text", "auto"),
  "gemma4e": ("gemma4_text", "auto"),
}
PROCESSORS = {
  "llava": transformers.LlavaProcessor,
  "internvl": InternVLProcessor,
  "llava_next": transformers.LlavaNextProcessor,
  "llava_onevision": LlavaOnevisionProcessor,
  "vipllava": transformers.LlavaProcessor,
  "pixtral": pixtral_files.PixtralProcessor,
  "mistral3": pixtral_files.PixtralProcessor,
  **NATIVE_PROCESSORS,
  "glm4v": Glm4vProcessor,
  "glm46v": Glm46VProcessor,
  "qwen3_vl_moe": NATIVE_PROCESSORS["qwen3_vl"],
  **idefics3_files.PROCESSORS,
  "gemma3": transformers.Gemma3Processor,
  "gemma4": gemma4_files.Gemma4Processor,
  "gemma4e": gemma4_files.Gemma4Processor,
}
# The marks of turns, the chat template, and further tokens that a processor asks for.
GEMMA = {
  "gemma3": (gemma3_files.TURN, gemma3_files.SOURCE, {}),
  "gemma4": (
    gemma4_files.TURN,
    gemma4_files.SOURCE,
    {**gemma4_files.AUDIO, "video_token": gemma4_files.VIDEO},
  ),
}
GEMMA["gemma4e"] = GEMMA["gemma4"]
SYSTEM = "Answer the question."
LENGTH = 448


def make_base(folder, family, **overrides):
  """A tiny base whose tokenizer names what the family's processor asks for.

  The overrides are those of `tiny.make_hf_config`.
  """
  fields = {"decoder": FAMILIES[family][0], "max_position_embeddings": 2 * LENGTH}
  base = tiny.make_base(folder, family=family, **{**fields, **overrides})
  if family in tiny_qwen.FAMILIES:
    return base
  if family in tiny.MARKED:
    return add_marks(base, family)
  if family == "gemma4e":
    gemma4_files.add_audio(base)
  if family in GEMMA:
    return add_turns(base, family)
  _, _, _, token, marks, _ = tiny.FAMILIES[family]
  special = (*tiny.SPECIAL[:4], token, "<|im_start|>", "<|im_end|>", "<img>", "</img>")
  turns = (*pixtral_files.SYSTEM, *pixtral_files.TURN)
  names = dict.fromkeys((*special, "<video>", *turns, *marks))
  core = tiny.make_tokenizer(318, tuple(names))
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=core.backend_tokenizer,
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
    pad_token="<pad>",
    extra_special_tokens={
      "start_image_token": "<img>",
      "end_image_token": "</img>",
      "context_image_token": token,
      "video_token": "<video>",
    },
  )
  if FAMILIES[family][1] == "auto":
    tokenizer.chat_template = pixtral_files.SOURCE
  tokenizer.save_pretrained(base)
  return base


def add_marks(base, family):
  """Gives a base of Idefics 3 or SmolVLM a tokenizer as the published ones are."""
  turns = (idefics3_files.BEGIN, idefics3_files.END)
  special = (*tiny.SPECIAL, *tiny.FAMILIES[family].marks, *turns)
  core = tiny.make_tokenizer(318, special).backend_tokenizer
  core.post_processor = None  # the chat template writes the first token
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=core,
    bos_token=turns[0],
    eos_token=turns[1],
    unk_token="<unk>",
    pad_token="<pad>",
  )
  tokenizer.chat_template = idefics3_files.SOURCE
  tokenizer.save_pretrained(base)
  return base


def add_turns(base, family):
  """Gives a base of Gemma 3 or 4 a tokenizer as the published one is."""
  own, turn, source, further = tiny.FAMILIES[family], *GEMMA[family]
  special = (*tiny.SPECIAL[:4], own.token, *own.marks, *turn, *further.values())
  begin, end = own.marks
  tokenizer = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tiny.make_tokenizer(310, special).backend_tokenizer,
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
    pad_token="<pad>",
    extra_special_tokens={
      "boi_token": begin,
      "eoi_token": end,
      "image_token": own.token,
      **further,
    },
  )
  if family == "gemma3":
    gemma3_files.add_lines(tokenizer)
  tokenizer.chat_template = source
  tokenizer.save_pretrained(base)
  return base


def load_processor(family, folder):
  """The family's own processor, with the files of the directory."""
  images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  fields = json.loads((folder / "processor_config.json").read_text())
  assert fields.pop("processor_class") == PROCESSORS[family].__name__
  parts = {"image_processor": images, "tokenizer": tokenizer}
  return PROCESSORS[family](**parts, **fields)


def write_text(family, record, processor):
  """A row as the family's processor takes it, the template written out."""
  if FAMILIES[family][1] == "auto":
    values = [turn["value"] for turn in record["conversations"]]
    chat = make_messages(values, SYSTEM, listed=True, leads=False)
    asks = not values[-1]
    if family in tiny.MARKED:  # whose template takes lists of parts alone
      chat[0]["content"] = [{"type": "text", "text": SYSTEM}]
    source = processor.tokenizer.chat_template
    text = processor.apply_chat_template(
      chat[: len(chat) - asks], source, tokenize=False, add_generation_prompt=asks
    )
    # What the template writes before the next question ends an answer, too.
    text += "<|user|>" * (family.startswith("glm4") and not asks)
    return text.removeprefix("<s>")  # which the tokenizer adds
  token = tiny.FAMILIES[family].token
  values = [turn["value"].replace("<image>", token) for turn in record["conversations"]]
  rounds = zip(values[::2], values[1::2], strict=True)
  if FAMILIES[family][1] == "vicuna_v1":
    rows = [f"USER: {asked} ASSISTANT: {answer}</s>" for asked, answer in rounds]
    return f"{SYSTEM} " + "".join(rows)
  return f"<|im_start|>system\n{SYSTEM}<|im_end|>\n" + "".join(
    f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
    for asked, answer in rounds
  )
