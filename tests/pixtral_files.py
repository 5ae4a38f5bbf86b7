"""The tokenizer, chat template and processor of Pixtral and Mistral 3, for tests."""

import sys
from typing import Any

from transformers.models.pixtral import image_processing_pil_pixtral

from tests.llama_like import make_tokenizer

# The processor's module imports a function that both forms of the image processor have
# from the one that needs torchvision.
sys.modules.setdefault(
  "transformers.models.pixtral.image_processing_pixtral", image_processing_pil_pixtral
)

from transformers.models.pixtral.processing_pixtral import (  # noqa: E402
  PixtralProcessor,
)

PixtralImageProcessor = image_processing_pil_pixtral.PixtralImageProcessorPil
IMAGE, BREAK, END = "[IMG]", "[IMG_BREAK]", "[IMG_END]"
SYSTEM = ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
TURN = ("[INST]", "[/INST]")

# Of the structure of Mistral Small 3.1's.
SOURCE = (
  "{{- bos_token }}{%- set rest = messages %}"
  "{%- if messages[0]['role'] == 'system' %}"
  "{%- if messages[0]['content'] is string %}"
  "{%- set system = messages[0]['content'] %}"
  "{%- else %}{%- set system = messages[0]['content'][0]['text'] %}{%- endif %}"
  "{{- '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}"
  "{%- set rest = messages[1:] %}{%- endif %}"
  "{%- for message in rest %}"
  "{%- if message['role'] == 'user' %}"
  "{%- if message['content'] is string %}"
  "{{- '[INST]' + message['content'] + '[/INST]' }}"
  "{%- else %}{{- '[INST]' }}"
  "{%- for block in message['content'] %}"
  "{%- if block['type'] == 'text' %}{{- block['text'] }}"
  "{%- elif block['type'] in ['image', 'image_url'] %}{{- '[IMG]' }}"
  "{%- else %}{{- raise_exception('Only text and images are supported') }}{%- endif %}"
  "{%- endfor %}{{- '[/INST]' }}{%- endif %}"
  "{%- elif message['role'] == 'assistant' %}"
  "{%- if message['content'] is string %}{{- message['content'] }}"
  "{%- else %}{%- for block in message['content'] %}{{- block['text'] }}"
  "{%- endfor %}{%- endif %}{{- eos_token }}"
  "{%- else %}{{- raise_exception('Unknown role') }}{%- endif %}{%- endfor %}"
)


# As Ministral 3's: of one image and one text, the image comes first.
_BLOCKS = "{%- for block in message['content'] %}{%- if"
SORTING = SOURCE.replace(
  _BLOCKS,
  "{%- set blocks = message['content'] %}{%- if blocks | length == 2 %}"
  "{%- set blocks = blocks | sort(attribute='type') %}{%- endif %}"
  "{%- for block in blocks %}{%- if",
)
assert SORTING != SOURCE


def make_pixtral_tokenizer(source: str | None = SOURCE) -> Any:
  """A tokenizer with the tokens of Mistral 3."""
  tokenizer = make_tokenizer("bytes")
  marks = [*SYSTEM, *TURN, IMAGE, BREAK, END]
  tokenizer.add_special_tokens({"additional_special_tokens": marks})
  tokenizer.chat_template = source
  return tokenizer


def make_processor(tokenizer: Any, side: int, edge: int, merge: int = 2) -> Any:
  """The families' processor, for tokens of `side` pixels and a longest edge."""
  images = PixtralImageProcessor(
    size={"longest_edge": edge}, patch_size={"height": side, "width": side}
  )
  return PixtralProcessor(
    images,
    tokenizer,
    patch_size=side // merge,
    spatial_merge_size=merge,
    chat_template=tokenizer.chat_template,
  )
