"""The pool check on a large LLaVA JSON: rows a second and peak memory.

    python -m benchmarks.check [--rows 1000000] [--images 0]

The file is drawn into a temporary folder. All named images are missing, or, with
--images, that many distinct ones are there and are named in turn.
"""

import argparse
import json
import os
import random
import resource
import tempfile
import time

from PIL import Image

from mllm_selector_jax.data.check import check_pool
from mllm_selector_jax.data.conversation import TEMPLATES, Encoder
from mllm_selector_jax.data.fingerprint import fingerprint
from mllm_selector_jax.data.records import read_records
from mllm_selector_jax.data.summary import format_summary
from mllm_selector_jax.data.table import read_table
from mllm_selector_jax.types import ImageOptions
from tests.tokenizers_on_the_spot import make_tokenizer

WORDS = "what colour is the circle left of one blue star and how many are there".split()
OPTIONS = ImageOptions(336, (0.5,) * 3, (0.5,) * 3)


def write_pool(path: str, rows: int, images: int, text_share: float) -> None:
  rng = random.Random(0)
  with open(path, "w") as file:
    file.write("[\n")
    for row in range(rows):
      turns = []
      for _ in range(rng.choice((1, 1, 2, 3))):
        question = " ".join(rng.choices(WORDS, k=rng.randint(4, 12)))
        turns += [
          {"from": "human", "value": question},
          {"from": "gpt", "value": " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))},
        ]
      record = {"id": f"{row:012d}", "conversations": turns}
      if rng.random() >= text_share:
        turns[0]["value"] = f"<image>\n{turns[0]['value']}"
        number = row % images if images else row
        record["image"] = f"part{number % 5}/{number:012d}.png"
      file.write(json.dumps(record) + (",\n" if row < rows - 1 else "\n]\n"))


def write_images(folder: str, count: int) -> None:
  rng = random.Random(0)
  for number in range(count):
    path = os.path.join(folder, f"part{number % 5}", f"{number:012d}.png")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.new("RGB", (64, 64), tuple(rng.choices(range(256), k=3))).save(path)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rows", type=int, default=1_000_000)
  parser.add_argument("--images", type=int, default=0)
  parser.add_argument("--text_share", type=float, default=0.1)
  arguments = parser.parse_args()
  tokenizer = make_tokenizer("bytes")
  token = tokenizer.convert_tokens_to_ids("<image>")
  encoder = Encoder(tokenizer, TEMPLATES["vicuna_v1"], token, 576, 2048)
  with tempfile.TemporaryDirectory() as folder:
    data = os.path.join(folder, "pool.json")
    write_pool(data, arguments.rows, arguments.images, arguments.text_share)
    write_images(folder, arguments.images)
    print(f"{arguments.rows:,} rows, {os.path.getsize(data) / 1e6:.0f} MB")

    def timed(name, function, *rest):
      wall, cpu = time.perf_counter(), time.process_time()
      result = function(*rest)
      wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
      peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
      print(
        f"{name:12} {wall:7.1f} s  {arguments.rows / wall:10,.0f} rows/s"
        f"  {cpu:7.1f} s of CPU  {peak:.2f} GB peak so far",
        flush=True,
      )
      return result

    timed("read", lambda: sum(1 for _ in read_records(data)))
    out = os.path.join(folder, "pool.parquet")
    found = timed(
      "check", check_pool, [data], folder, encoder, OPTIONS, 64_000_000, out
    )
    table = timed("open", read_table, out)
    timed("columns", lambda: [getattr(table, name) for name in ("id", "image", "ok")])
    timed("fingerprint", fingerprint, [data], folder)
    print(format_summary(found))


if __name__ == "__main__":
  main()
