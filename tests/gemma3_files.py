"""The tokenizer, chat template and processor of Gemma 3, for tests."""

from typing import Any

import transformers
from tokenizers import AddedToken
from transformers.models.gemma3.image_processing_pil_gemma3 import (
  Gemma3ImageProcessorPil,
)

from mllm_selector_jax.models.huggingface.model_families.gemma3_family import (
  BEGIN,
  END,
  IMAGE_TOKEN,
  read_lines,
)
from mllm_selector_jax.types import ImageTokens
from tests.gemma_files import make_tokenizer

TURN = ("<start_of_turn>", "<end_of_turn>")
# As in the published tokenizer, line feeds in a row are one token.
LINES = tuple("\n" * count for count in range(1, 7))
# Of the structure of the published one: the system text is the beginning of the first
# question, and texts lose their blanks.
SOURCE = (
  "{{ bos_token }}"
  "{%- if messages[0].role == 'system' -%}"
  "{%- set said = messages[0].content -%}"
  "{%- set before = (said if said is string else said[0].text) + '\n\n' -%}"
  "{%- set rest = messages[1:] -%}"
  "{%- else -%}{%- set before = '' -%}{%- set rest = messages -%}{%- endif -%}"
  "{%- for message in rest -%}"
  "{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}"
  "{{ raise_exception('Roles must alternate') }}{%- endif -%}"
  "{%- set role = 'model' if message.role == 'assistant' else message.role -%}"
  "{{ '<start_of_turn>' + role + '\n' + (before if loop.first else '') }}"
  "{%- if message.content is string -%}{{ message.content | trim }}"
  "{%- else -%}{%- for part in message.content -%}"
  "{%- if part.type == 'image' -%}{{ '<start_of_image>' }}"
  "{%- elif part.type == 'text' -%}{{ part.text | trim }}{%- endif -%}"
  "{%- endfor -%}{%- endif -%}"
  "{{ '<end_of_turn>\n' }}{%- endfor -%}"
  "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)


def add_lines(tokenizer: Any) -> None:
  """Gives a tokenizer the tokens of several line feeds, which are not special."""
  tokenizer.add_tokens([AddedToken(text, normalized=False) for text in LINES])


def make_gemma_tokenizer(source: str | None = SOURCE) -> transformers.GemmaTokenizer:
  """A tokenizer of Gemma's class, with the marks of Gemma 3."""
  named = {"boi_token": BEGIN, "eoi_token": END, "image_token": IMAGE_TOKEN}
  tokenizer = make_tokenizer(named, TURN, source)
  add_lines(tokenizer)
  return tokenizer


def read_tokens(tokenizer: Any) -> ImageTokens:
  """The ids that stand for an image."""
  image, begin, end = tokenizer.convert_tokens_to_ids([IMAGE_TOKEN, BEGIN, END])
  return ImageTokens(image, (begin,), (end,), **read_lines(tokenizer))


def make_processor(tokenizer: Any, options: Any) -> transformers.Gemma3Processor:
  """The family's processor, which prepares images as the options say."""
  images = Gemma3ImageProcessorPil(
    size={"height": options.size, "width": options.size},
    image_mean=options.mean,
    image_std=options.std,
    resample=options.resample,
  )
  return transformers.Gemma3Processor(
    images,
    tokenizer,
    chat_template=tokenizer.chat_template,
    image_seq_length=options.grid**2,
  )
