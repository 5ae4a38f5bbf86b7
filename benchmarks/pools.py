"""Pools of each format: check and prepare, beside `datasets` reading the same file.

    python -m benchmarks.pools [--rows 1000000] [--kinds tar,parquet,...]

Rows are those of `benchmarks.check`; nine of ten have one of 1,000 small images of
noise, inside the file where the format has them there. Each measurement is a process
of its own; its peak memory is that of the largest of its processes.
"""

import argparse
import io
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tarfile
import tempfile
import time

import numpy as np
from PIL import Image

KINDS = ("llava", "lines", "messages", "parquet", "tar", "tfds")
IMAGES = 1000
SIDE = 16  # pixels
LOADERS = {"parquet": "parquet", "tar": "webdataset"}


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rows", type=int, default=1_000_000)
  parser.add_argument("--kinds", default=",".join(KINDS))
  parser.add_argument("--workers", type=int, default=2)
  arguments = parser.parse_args()
  print("kind | rows | MB | step | s | s of CPU | rows/s | MB/s | peak MB")
  for kind in arguments.kinds.split(","):
    with tempfile.TemporaryDirectory() as folder:
      call(write, kind, arguments.rows, folder)
      data = find(kind, folder)
      size = measure(data)
      for name, function, rest in (
        ("check", check, ()),
        ("prepare", prepare, (arguments.workers,)),
        ("datasets", load, (kind,)),
      ):
        seconds, cpu, peak, note = call(function, data, folder, *rest)
        rate, speed = (
          (arguments.rows / seconds, size / 1e6 / seconds) if seconds else (0, 0)
        )
        print(
          f"{kind} | {arguments.rows:,} | {size / 1e6:.0f} | {name} | {seconds:.1f} |"
          f" {cpu:.1f} |"
          f" {rate:,.0f} | {speed:.1f} | {peak:.0f}"
          f"{note}",
          flush=True,
        )


def call(function, *arguments):
  """Seconds, of CPU too, and peak megabytes of a function in its own process."""
  context = multiprocessing.get_context("spawn")
  queue = context.SimpleQueue()
  process = context.Process(target=_measured, args=(queue, function, arguments))
  process.start()
  process.join()
  assert process.exitcode == 0, (function, process.exitcode)
  return queue.get()


def _measured(queue, function, arguments):
  seconds, note = function(*arguments) or (0, "")
  used = [
    resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  ]
  cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
  queue.put((seconds, cpu, max(usage.ru_maxrss for usage in used) / 1e3, note))


def find(kind: str, folder: str) -> str:
  suffix = {"lines": ".jsonl", "parquet": ".parquet", "tar": ".tar", "tfds": ""}
  return os.path.join(folder, f"pool{suffix.get(kind, '.json')}")


def measure(path: str) -> int:
  if os.path.isfile(path):
    return os.path.getsize(path)
  return sum(entry.stat().st_size for entry in os.scandir(path))


def write(kind: str, rows: int, folder: str) -> None:
  from benchmarks.check import write_pool

  source = os.path.join(folder, "source.json")
  write_pool(source, rows, IMAGES, 0.1)
  pictures = write_images(folder)
  out = find(kind, folder)
  if kind == "llava":
    os.rename(source, out)
    return
  WRITERS[kind](read_source(source), pictures, out)
  os.unlink(source)


def write_images(folder: str) -> dict[str, bytes]:
  rng, pictures = np.random.default_rng(0), {}
  for number in range(IMAGES):
    buffer = io.BytesIO()
    noise = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    name = f"part{number % 5}/{number:012d}.png"
    pictures[name] = buffer.getvalue()
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
      file.write(buffer.getvalue())
  return pictures


def read_source(path: str):
  with open(path) as file:
    for line in file:
      if line.startswith("{"):
        yield json.loads(line.rstrip().rstrip(",").removesuffix("\n]"))


def write_lines(records, pictures, out: str) -> None:
  with open(out, "w") as file:
    for record in records:
      file.write(json.dumps(record) + "\n")


def write_messages(records, pictures, out: str) -> None:
  from tests.data.formats_on_the_spot import as_messages

  with open(out, "w") as file:
    file.write("[\n")
    for number, record in enumerate(records):
      file.write((",\n" if number else "") + json.dumps(as_messages(record)))
    file.write("\n]\n")


def write_parquet(records, pictures, out: str) -> None:
  import pyarrow as pa
  import pyarrow.parquet as pq

  turn = pa.struct([("from", pa.string()), ("value", pa.string())])
  image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
  schema = pa.schema(
    [("id", pa.string()), ("image", image), ("conversations", pa.list_(turn))]
  )
  with pq.ParquetWriter(out, schema) as writer:
    rows = []
    for record in records:
      name = record.get("image")
      picture = name and {"bytes": pictures[name], "path": name}
      rows.append({**record, "image": picture})
      if len(rows) == 10_000:
        writer.write_table(pa.Table.from_pylist(rows, schema))
        rows = []
    if rows:
      writer.write_table(pa.Table.from_pylist(rows, schema))


def write_tar(records, pictures, out: str) -> None:
  with tarfile.open(out, "w") as archive:
    for number, record in enumerate(records):
      members = {"json": json.dumps(record).encode()}
      if "image" in record:
        members["png"] = pictures[record["image"]]
      for suffix, data in members.items():
        info = tarfile.TarInfo(f"{number:09d}.{suffix}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
      archive.members.clear()


def write_tfds(records, pictures, out: str) -> None:
  from mllm_selector_jax.data.formats import tf_example
  from mllm_selector_jax.data.formats.array_record_file import open_writer
  from tests.data import formats_on_the_spot as spot

  os.mkdir(out)
  features = {
    "id": spot.TEXT,
    "images": {"sequence": {"feature": spot.IMAGE, "length": "-1"}},
    "conversations": {"sequence": {"feature": spot.TURN, "length": "-1"}},
  }
  with open(os.path.join(out, "features.json"), "w") as file:
    json.dump({"featuresDict": {"features": features}}, file)
  with open_writer(
    os.path.join(out, "pool-train.array_record-00000-of-00001")
  ) as writer:
    for record in records:
      turns, name = record["conversations"], record.get("image")
      values = {
        "id": [record["id"].encode()],
        "images": [pictures[name]] if name else [],
        "conversations/from": [turn["from"].encode() for turn in turns],
        "conversations/value": [turn["value"].encode() for turn in turns],
      }
      writer.write(tf_example.encode(values))


WRITERS = {
  "lines": write_lines,
  "messages": write_messages,
  "parquet": write_parquet,
  "tar": write_tar,
  "tfds": write_tfds,
}


def check(data: str, folder: str) -> tuple[float, str]:
  from benchmarks.check import make_arguments
  from mllm_selector_jax.data.pool.pool_check import check_pool

  out = os.path.join(folder, "table")
  given = make_arguments(data, folder, out)
  start = time.perf_counter()
  found = check_pool(*given)
  assert not found["aside"], found["aside"]
  return time.perf_counter() - start, ""


def prepare(data: str, folder: str, workers: int) -> tuple[float, str]:
  import pathlib

  from mllm_selector_jax.data.pool.prepared_pool import write_shards

  out = pathlib.Path(folder, "prepared")
  out.mkdir()
  table = os.path.join(folder, "table")
  start = time.perf_counter()
  write_shards(table, folder, out, 4096, workers, lambda *_: None)
  seconds = time.perf_counter() - start
  shutil.rmtree(out)
  return seconds, ""


def load(data: str, folder: str, kind: str) -> tuple[float, str]:
  """All rows once, undecoded, as `datasets` streams them."""
  if kind == "tfds":
    return 0.0, " (has no reader)"
  import datasets

  start = time.perf_counter()
  try:
    rows = datasets.load_dataset(
      LOADERS.get(kind, "json"), data_files=data, split="train", streaming=True
    )
    for name in ("image", "png"):
      if name in (rows.features or {}):
        rows = rows.cast_column(name, datasets.Image(decode=False))
    count = sum(1 for _ in rows)
  except Exception as error:  # what it cannot read is part of the comparison
    return 0.0, f" ({type(error).__name__})"
  return time.perf_counter() - start, f" ({count:,} rows)"


if __name__ == "__main__":
  sys.exit(main())
