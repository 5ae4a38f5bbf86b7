"""Pools whose rows have no image, one, or several, in files and inside Parquet."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.pool import pool_check
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.data.tokens.conversation import TEMPLATES, Encoder
from mllm_selector_jax.types import ImageOptions, ImageTokens
from tests.data.pools_on_the_spot import make_record, talk, write_images
from tests.tokenizers_on_the_spot import make_tokenizer

HALF = (0.5, 0.5, 0.5)
# An image 16 wide and 8 high is two tiles and a thumbnail; a square one is one tile.
TILED = ImageOptions(8, HALF, HALF, form="internvl", grid=2, max_tiles=4)
WIDE, SQUARE = "a/wide.png", "a/square.png"
TILES = {WIDE: 3, SQUARE: 1, "b/0.png": 1}
MARKS = 2  # tokens around an image
ASKED = "<image>\n<image>\n<image>\nwhich of them is blue?"


def make_encoder(options=TILED):
  tokenizer = make_tokenizer("bytes")
  token = tokenizer.convert_tokens_to_ids("<image>")
  images = BaseImages(options, ImageTokens(token, begin=(40,), end=(41,)))
  return Encoder(tokenizer, TEMPLATES["vicuna_v1"], images, 2048)


def see(number, *images, question=ASKED, **extra):
  """A record of several images."""
  turns = [*talk(question, "the first"), *talk("why?", "because")]
  return {"id": f"id-{number}", "images": [*images], "conversations": turns, **extra}


def make_records():
  """Rows of 0, 1 and 3 images; two images of a row may be the same."""
  later = see(5, SQUARE, question="<image>\nwhat is it?")
  later["images"].append(WIDE)
  later["conversations"] += talk("and <image>?", "blue")
  return [
    make_record(0),
    make_record(1, WIDE),
    see(2, SQUARE, WIDE, "b/0.png"),
    see(3, WIDE, WIDE, SQUARE),
    see(4, SQUARE, WIDE, "b/0.png", question="<image> or <image> or <image>?"),
    later,
  ]


IMAGES_OF = [
  (), (WIDE,), (SQUARE, WIDE, "b/0.png"), (WIDE, WIDE, SQUARE),
  (SQUARE, WIDE, "b/0.png"), (SQUARE, WIDE),
]  # fmt: skip


def draw_images(folder):
  """Draws the images of `IMAGES_OF`, and gives the folder that holds theirs."""
  write_images(folder / "images", "b/0.png")
  rng = np.random.default_rng(5)
  for name, shape in (WIDE, (8, 16, 3)), (SQUARE, (8, 8, 3)):
    path = folder / "images" / name
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(path)
  return folder


def list_image(record):
  return [record["image"]] if "image" in record else []


def open_image(place, name):
  with Image.open(place / "images" / name) as image:
    return image.convert("RGB")


def write_inside(records, folder, path):
  """The records in Parquet, with the images' bytes in it."""
  rows = []
  for record in records:
    names = record["images"] if "images" in record else list_image(record)
    files = [{"bytes": (folder / name).read_bytes(), "path": name} for name in names]
    turns = record["conversations"]
    rows.append({"id": record["id"], "images": files, "conversations": turns})
  pq.write_table(pa.Table.from_pylist(rows), path)
  return str(path)


def write_pool(kind, records, place, out):
  if kind == "parquet":
    return write_inside(records, place / "images", out / "pool.parquet"), None
  path = out / "pool.json"
  path.write_text(json.dumps(records))
  return str(path), str(place / "images")


def check(path, images, out, encoder=None, **options):
  encoder = encoder or make_encoder()
  found = pool_check.check_pool([path], images, encoder, 10_000, out, **options)
  return found, read_table(out)
