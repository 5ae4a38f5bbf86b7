"""The pool check on a large LLaVA JSON: rows a second and peak memory.

    python -m benchmarks.check [--rows 1000000] [--images 0]
    python -m benchmarks.check --other=CHECKOUT [--python=BIN] [--repeats 2]

The file is drawn into a temporary folder. All named images are missing, or, with
--images, that many distinct ones are there and are named in turn. With --other the
check of this checkout and of another one read the same file, each in processes of its
own, one after the other in turn, and the ratios of their seconds and of their peak
memory are told. --python is the other one's interpreter where it needs one.
"""

import argparse
import inspect
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# A child's peak memory counts what its parent had when it was started, so that what
# is large is imported where it is used.

WORDS = "what colour is the circle left of one blue star and how many are there".split()
HERE = Path(__file__).resolve().parents[1]
MEASURES = {"seconds": "s", "cpu": "s of CPU", "peak": "MB peak"}


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
  from PIL import Image

  rng = random.Random(0)
  for number in range(count):
    path = os.path.join(folder, f"part{number % 5}", f"{number:012d}.png")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.new("RGB", (64, 64), tuple(rng.choices(range(256), k=3))).save(path)


def make_arguments(data: str, images: str, out: str) -> list[Any]:
  """What `check_pool` takes, in its order, of this version and of earlier ones."""
  from mllm_selector_jax.data.pool.pool_check import check_pool
  from mllm_selector_jax.data.tokens.conversation import TEMPLATES, Encoder
  from mllm_selector_jax.types import ImageOptions
  from tests.tokenizers_on_the_spot import make_tokenizer

  tokenizer = make_tokenizer("bytes")
  token = tokenizer.convert_tokens_to_ids("<image>")
  options = ImageOptions(336, (0.5,) * 3, (0.5,) * 3)
  apart = "options" in inspect.signature(check_pool).parameters  # an earlier version
  if apart:
    bound: list[Any] = [token, 576]
  else:
    from tests.fixed_images import fixed_images

    bound = [fixed_images(token, 576, options)]
  encoder = Encoder(tokenizer, TEMPLATES["vicuna_v1"], *bound, 2048)
  given = [encoder, options] if apart else [encoder]
  return [[data], images, *given, 64_000_000, out]


def measure_check(folder: str) -> dict[str, Any]:
  """Checks the pool in the folder with the package that is found first."""
  import mllm_selector_jax
  from mllm_selector_jax.data.pool.pool_check import check_pool

  data, out = (os.path.join(folder, name) for name in ("pool.json", "pool.parquet"))
  given = make_arguments(data, folder, out)
  wall, cpu = time.perf_counter(), time.process_time()
  found = check_pool(*given)
  return {
    "seconds": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
    "peak": read_peak() * 1e3,
    "package": str(Path(mllm_selector_jax.__file__).parent),
    "rows": found["rows"],
    "ok": found["ok"],
  }


def read_peak() -> float:
  """GB that this process has had at most."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def compare(folder: str, other: Path, python: str, repeats: int) -> None:
  """Runs both checks in turn and prints their medians and ratios."""
  sides = {"this": (HERE, sys.executable), "other": (other.resolve(), python)}
  runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
  for turn in range(repeats):
    # Whoever is first reads the file from the disk.
    for name in sorted(sides, reverse=turn % 2 == 0):
      place, interpreter = sides[name]
      found = _run_side(place, interpreter, folder)
      runs[name].append(found)
      told = ", ".join(f"{found[key]:,.1f} {unit}" for key, unit in MEASURES.items())
      print(f"{name:6} {told}, {found['ok']:,} of {found['rows']:,} usable", flush=True)
  for key, unit in MEASURES.items():
    ours, theirs = (statistics.median(one[key] for one in runs[n]) for n in sides)
    print(f"{unit}: {ours:,.1f} this, {theirs:,.1f} other, ratio {ours / theirs:.3f}")


def _run_side(place: Path, interpreter: str, folder: str) -> dict[str, Any]:
  command = [interpreter, str(Path(__file__).resolve()), "--measure", folder]
  # The checkout comes before what the interpreter has installed.
  environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"}
  done = subprocess.run(
    command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True, check=True
  )
  found = json.loads(done.stdout.splitlines()[-1])
  if Path(found["package"]) != place / "mllm_selector_jax":
    raise SystemExit(f"{interpreter} took {found['package']}, not that of {place}.")
  return found


def profile(folder: str, rows: int) -> None:
  """Times each step of this checkout, and prints what the pool holds."""
  from mllm_selector_jax.data.files.fingerprint import fingerprint
  from mllm_selector_jax.data.json_text.records import read_records
  from mllm_selector_jax.data.pool.pool_check import check_pool
  from mllm_selector_jax.data.pool.pool_table import read_table
  from mllm_selector_jax.data.pool.summary_text import format_summary

  data, out = (os.path.join(folder, name) for name in ("pool.json", "pool.parquet"))

  def timed(name, function, *rest):
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*rest)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
      f"{name:12} {wall:7.1f} s  {rows / wall:10,.0f} rows/s"
      f"  {cpu:7.1f} s of CPU  {read_peak():.2f} GB peak so far",
      flush=True,
    )
    return result

  timed("read", lambda: sum(1 for _ in read_records(data)))
  found = timed("check", check_pool, *make_arguments(data, folder, out))
  table = timed("open", read_table, out)
  timed("columns", lambda: [getattr(table, name) for name in ("id", "images", "ok")])
  timed("fingerprint", fingerprint, [data], folder)
  print(format_summary(found))


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rows", type=int, default=1_000_000)
  parser.add_argument("--images", type=int, default=0)
  parser.add_argument("--text_share", type=float, default=0.1)
  parser.add_argument("--other", type=Path, help="another checkout")
  parser.add_argument("--python", default=sys.executable, help="its interpreter")
  parser.add_argument("--repeats", type=int, default=1, help="processes of each")
  parser.add_argument("--measure", help=argparse.SUPPRESS)  # a drawn folder
  arguments = parser.parse_args()
  if arguments.measure:
    print(json.dumps(measure_check(arguments.measure)))
    return
  with tempfile.TemporaryDirectory() as folder:
    data = os.path.join(folder, "pool.json")
    write_pool(data, arguments.rows, arguments.images, arguments.text_share)
    write_images(folder, arguments.images)
    print(f"{arguments.rows:,} rows, {os.path.getsize(data) / 1e6:.0f} MB", flush=True)
    if arguments.other:
      compare(folder, arguments.other, arguments.python, arguments.repeats)
    else:
      profile(folder, arguments.rows)


if __name__ == "__main__":
  main()
