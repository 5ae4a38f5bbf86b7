"""Tokenizers, a chat template and the processors of Idefics 3 and SmolVLM."""

from typing import Any

import transformers
from transformers.models.smolvlm import processing_smolvlm

from mllm_selector_jax.models.huggingface.model_families.idefics3_family import (
  AROUND,
  WHOLE,
  read_tile_marks,
)
from mllm_selector_jax.types import ImageTokens
from tests.llama_like import make_tokenizer
from tests.models.huggingface.test_image_options import WithoutVideos

# SmolVLM's processor asks for the package num2words, which spells how many frames a
# video has. No test has a video.
processing_smolvlm.num2words = processing_smolvlm.num2words or str


class SmolVLMProcessor(WithoutVideos, processing_smolvlm.SmolVLMProcessor):
  """SmolVLM's processor without one of videos, for which torchvision is needed."""

  def __init__(self, image_processor: Any, tokenizer: Any, **kwargs: Any):
    super().__init__(image_processor, tokenizer, None, **kwargs)

  def apply_chat_template(
    self, conversation: Any, chat_template: str | None = None, **kwargs: Any
  ) -> Any:
    """Renders a conversation without what SmolVLM's own method adds for videos."""
    return transformers.ProcessorMixin.apply_chat_template(
      self, conversation, chat_template, **kwargs
    )


IMAGE_PROCESSORS = {
  "idefics3": transformers.models.idefics3.Idefics3ImageProcessorPil,
  "smolvlm": transformers.models.smolvlm.SmolVLMImageProcessorPil,
}
PROCESSORS = {
  "idefics3": transformers.Idefics3Processor,
  "smolvlm": SmolVLMProcessor,
}
BEGIN, END = "<|im_start|>", "<end_of_utterance>"
TAGS = tuple(
  f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)
)
# Of the structure of the published ones: the blank after a role's colon belongs to the
# text, and an image that comes first has none.
SOURCE = (
  "<|im_start|>{%- for message in messages -%}"
  "{{- (message.role | capitalize) + ':' -}}"
  "{%- if message.content[0].type != 'image' -%}{{- ' ' -}}{%- endif -%}"
  "{%- for part in message.content -%}"
  "{{- part.text if part.type == 'text' else '<image>' -}}"
  "{%- endfor -%}"
  "{{- '<end_of_utterance>\n' -}}"
  "{%- endfor -%}"
  "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)


def make_family_tokenizer(family: str) -> Any:
  """A tokenizer whose marks of tiles are tokens (SmolVLM) or text (Idefics 3)."""
  tokenizer = make_tokenizer("bytes")
  marks = [AROUND, END]
  if family == "smolvlm":
    marks += [WHOLE, *TAGS]
  tokenizer.add_special_tokens({"additional_special_tokens": marks})
  tokenizer.chat_template = SOURCE
  return tokenizer


def read_tokens(tokenizer: Any) -> ImageTokens:
  """The ids that stand for an image."""
  image, around = tokenizer.convert_tokens_to_ids(["<image>", AROUND])
  return ImageTokens(image, end=(around,), **read_tile_marks(tokenizer))


def make_image_processor(family: str, options: Any, **fields: Any) -> Any:
  """The family's image processor that does as the options say."""
  return IMAGE_PROCESSORS[family](
    size={"longest_edge": options.longest_edge},
    max_image_size={"longest_edge": options.size},
    do_image_splitting=options.split,
    image_mean=options.mean,
    image_std=options.std,
    **fields,
  )


def make_processor(family: str, options: Any) -> Any:
  """The family's processor, with a tokenizer of its own."""
  tokenizer = make_family_tokenizer(family)
  return PROCESSORS[family](
    make_image_processor(family, options),
    tokenizer,
    image_seq_len=options.grid**2,
    chat_template=tokenizer.chat_template,
  )
