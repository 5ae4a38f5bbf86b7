"""The tokenizer, chat template and processor of Gemma 4, for tests."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.gemma4.image_processing_pil_gemma4 import (
  Gemma4ImageProcessorPil,
)

from mllm_selector_jax.models.huggingface.gemma4_images import POOL
from mllm_selector_jax.models.huggingface.model_families.gemma4_family import (
  BEGIN,
  END,
  IMAGE_TOKEN,
)
from mllm_selector_jax.types import ImageTokens
from tests.gemma_files import make_tokenizer
from tests.models.huggingface import bases

TURN = ("<|turn>", "<turn|>")
AUDIO = {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
VIDEO = "<|video|>"  # which the processor adds
# Of the structure of the published one, without tools and thoughts: texts lose their
# blanks, and the system has a turn of its own.
SOURCE = (
  "{{ bos_token }}{%- for message in messages -%}"
  "{%- set role = 'model' if message.role == 'assistant' else message.role -%}"
  "{{ '<|turn>' + role + '\n' }}"
  "{%- if message.content is string -%}{{ message.content | trim }}"
  "{%- else -%}{%- for part in message.content -%}"
  "{%- if part.type == 'image' -%}{{ '<|image|>' }}"
  "{%- elif part.type == 'text' -%}{{ part.text | trim }}{%- endif -%}"
  "{%- endfor -%}{%- endif -%}"
  "{{ '<turn|>\n' }}{%- endfor -%}"
  "{%- if add_generation_prompt -%}{{ '<|turn>model\n' }}{%- endif -%}"
)
# A tiny tower for audio.
HEARING = {
  "model_type": "gemma4_audio",
  "hidden_size": 8,
  "num_hidden_layers": 1,
  "num_attention_heads": 2,
  "subsampling_conv_channels": [4, 2],
  "output_proj_dims": 6,
}


def add_audio(base: Path) -> Path:
  """Gives a base a part for audio, in bfloat16, as E2B and E4B have one."""
  config = base / "config.json"
  bases.edit_json(config, lambda value: value.update(audio_config=HEARING))
  kind = transformers.Gemma4ForConditionalGeneration
  with torch.device("meta"):
    model = kind(transformers.AutoConfig.from_pretrained(base))
  rng = np.random.default_rng(0)
  drawn = {
    name: rng.normal(size=value.shape).astype("bfloat16")
    for name, value in model.state_dict().items()
    if name.startswith(("model.audio_tower.", "model.embed_audio."))
  }
  bases.edit_tensors(base, lambda tensors: tensors.update(drawn))
  return base


class Gemma4Processor(transformers.Gemma4Processor):
  """The family's processor, which here takes neither audio nor videos."""

  def __init__(
    self,
    feature_extractor=None,
    image_processor=None,
    tokenizer=None,
    video_processor=None,
    **kwargs,
  ):
    parts = feature_extractor, image_processor, tokenizer, video_processor
    super().__init__(*parts, **kwargs)

  def check_argument_for_proper_class(self, name, value):
    """Checks the parts that are there."""
    if value is not None:
      super().check_argument_for_proper_class(name, value)


def make_gemma_tokenizer(source: str | None = SOURCE) -> transformers.GemmaTokenizer:
  """A tokenizer of Gemma's class, with the marks of Gemma 4."""
  named = {"boi_token": BEGIN, "eoi_token": END, "image_token": IMAGE_TOKEN}
  return make_tokenizer({**named, **AUDIO}, [*TURN, VIDEO], source)


def read_tokens(tokenizer: Any) -> ImageTokens:
  """The ids that stand for an image."""
  image, begin, end = tokenizer.convert_tokens_to_ids([IMAGE_TOKEN, BEGIN, END])
  return ImageTokens(image, (begin,), (end,))


def make_processor(tokenizer: Any, options: Any) -> Gemma4Processor:
  """The family's processor, which prepares images as the options say."""
  images = Gemma4ImageProcessorPil(
    patch_size=options.size // POOL,
    max_soft_tokens=options.max_pixels // options.size**2,
    resample=options.resample,
  )
  source = tokenizer.chat_template
  return Gemma4Processor(None, images, tokenizer, chat_template=source)
