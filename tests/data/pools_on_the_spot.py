"""Small pools of files for tests."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mllm_selector_jax.data.pool.pool_check import check_pool
from mllm_selector_jax.data.pool.pool_table import PoolTable, read_table
from mllm_selector_jax.data.tokens.box_forms import BOX_FORMS
from mllm_selector_jax.data.tokens.conversation import TEMPLATES, Encoder
from mllm_selector_jax.types import ImageOptions
from tests.fixed_images import fixed_images
from tests.tokenizers_on_the_spot import make_tokenizer

OPTIONS = ImageOptions(8, (0.5,) * 3, (0.5,) * 3)


def make_encoder(max_length: int = 2048, options: ImageOptions = OPTIONS) -> Encoder:
  tokenizer = make_tokenizer("bytes")
  token = tokenizer.convert_tokens_to_ids("<image>")
  images = fixed_images(token, 4, options)
  template, form = TEMPLATES["vicuna_v1"], BOX_FORMS["llava"]
  return Encoder(tokenizer, template, images, max_length, box_form=form)


def talk(question: str, answer: str) -> list[dict]:
  return [
    {"from": "human", "value": question},
    {"from": "gpt", "value": answer},
  ]


def make_record(number: int, image: str | None = None, **extra) -> dict:
  mark = "<image>\n" if image else ""
  record = {"id": f"id-{number}", **({"image": image} if image else {})}
  words = talk(f"{mark}how many squares are in picture {number}?", "two")
  return {**record, "conversations": words, **extra}


def write_images(folder: Path, *names: str) -> None:
  for seed, name in enumerate(names):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(noise).save(path)


def write_records(path: Path, records: list) -> str:
  path.write_text(json.dumps(records, ensure_ascii=False))
  return str(path)


def check_records(
  folder: Path, records: list, max_length: int = 2048, **options
) -> tuple[dict, PoolTable]:
  """The summary and the table of a check of these records."""
  path, out = write_records(folder / "pool.json", records), folder / "pool.parquet"
  images, encoder = str(folder / "images"), make_encoder(max_length)
  summary = check_pool([path], images, encoder, 10_000, out, **options)
  return summary, read_table(out)
