"""Hugging Face directories: config, index, weights, tokenizer, processor, template."""

import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.tokens.conversation import make_encoder
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface.tokenizer_files import load_tokenizer
from tests import tokenizers_on_the_spot
from tests.data import qwen_vl_chats, test_templates
from tests.fixed_images import fixed_images
from tests.fuzz.kinds import TAKEN, Kind
from tests.llama_like import make_tokenizer
from tests.models import tiny, tiny_qwen
from tests.models.huggingface import bases

FAMILIES = (*tiny.FAMILIES, *tiny_qwen.FAMILIES)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
WEIGHTS = (".safetensors", ".index.json")
OTHERS = ("config.json", ".jinja", "processor_config.json")
TALK = [
  {"from": "human", "value": "<image>\nwhat's in  it? é😀</s>"},
  {"from": "gpt", "value": "two  circles\n"},
]
TEMPLATES = (*test_templates.SOURCES.values(), *qwen_vl_chats.SOURCES.values())


@functools.cache
def _find_base(family: str) -> Path:
  """A tiny base of a family, made once a process."""
  return tiny.make_base(Path(tempfile.mkdtemp()) / "base", family=family)


def write_model(folder: Path, number: int) -> None:
  shutil.copytree(_find_base(FAMILIES[number]), folder, dirs_exist_ok=True)


def write_llava(folder: Path, number: int) -> None:
  write_model(folder, 0)
  if number:
    bases.shard(folder, number + 1)


def read_model(folder: Path) -> str:
  """All that is read of a base before anything long is begun, but the weights."""
  tokenizer, options = huggingface.read_processor(folder, True)
  tokens = huggingface.read_image_tokens(folder, tokenizer)
  encoder = make_encoder(
    "auto",
    tokenizer,
    BaseImages(options, tokens, None, None),
    256,
    ends=huggingface.read_ends(folder, tokenizer),
  )
  huggingface.check_weights(folder, huggingface.read_config(folder))
  encode(encoder)
  return TAKEN


def encode(encoder: Any) -> None:
  sample = encoder.encode(TALK, [(40, 24)])
  assert len(sample.tokens) <= 256


def read_weights(folder: Path) -> str:
  config = huggingface.read_config(folder)
  huggingface.check_weights(folder, config)
  huggingface.read_params(folder, config)
  return TAKEN


def write_tokenizer(folder: Path, number: int) -> None:
  if number == 0:
    tiny.make_tokenizer().save_pretrained(folder)
  elif number == 1:
    make_tokenizer("first").save_pretrained(folder)
  elif number == 2:
    make_tokenizer("qwen").save_pretrained(folder)
  else:
    tokenizers_on_the_spot.write_sentencepiece(folder)


def read_tokenizer(folder: Path) -> str:
  tokenizer = load_tokenizer(folder)
  encode(make_encoder("vicuna_v1", tokenizer, fixed_images(4, 16), 256))
  return TAKEN


def write_template(folder: Path, number: int) -> None:
  (folder / "chat_template.jinja").write_text(TEMPLATES[number])


@functools.cache
def _template_tokenizer(number: int) -> Any:
  return make_tokenizer("qwen", begins=False)


def read_template(folder: Path) -> str:
  tokenizer = _template_tokenizer(0)
  data = (folder / "chat_template.jinja").read_bytes()
  tokenizer.chat_template = data.decode("utf-8", "replace")
  encode(make_encoder("chat", tokenizer, fixed_images(3, 16), 256))
  return TAKEN


def list_kinds() -> list[Kind]:
  families = len(FAMILIES)
  return [
    Kind(
      "model config", write_model, read_model, families, 0.4, (*TOKENIZER, *WEIGHTS)
    ),
    Kind("model weights", write_llava, read_weights, 3, 0.2, (*TOKENIZER, *OTHERS)),
    Kind("tokenizer", write_tokenizer, read_tokenizer, 4, 0.5),
    Kind("chat template", write_template, read_template, len(TEMPLATES), 2),
  ]
