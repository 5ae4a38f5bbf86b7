"""The check of a pool with the ids and paths of LLaVA's mix: no row may be lost.

    python -m benchmarks.check_like_665k [--rows=13306] [--folder=DIR] [--no_links]

Rows, ids, paths and rounds are drawn by `pool_like_665k`: an id is the image's, and so
repeats. Image files are hard links to a few tiny JPEGs. Their folder is laid out as
people have it, data sets on other disks being linked; --no_links has them in place.
The default is all 665,298 rows; a fiftieth takes seconds. The exit status is 1 if a
row is set aside.
"""

import argparse
import collections
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import pool_like_665k
from benchmarks.case_pools import check, read_encoder

MAX_LENGTH = 2048  # tokens, as LLaVA cuts rows
DISTINCT = 64  # JPEG files; a file takes some 65,000 hard links
# Folders below the image folder that lead to another disk.
LINKED = ("coco", "gqa", "textvqa/train_images", "vg/VG_100K", "vg/VG_100K_2")
WORDS = "what colour is the large disc left of one blue star and how many are there"


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rows", type=int, default=pool_like_665k.ROWS)
  parser.add_argument("--folder", type=Path, help="keep the pool there")
  parser.add_argument("--no_links", action="store_true")
  arguments = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    place = arguments.folder or Path(temporary)
    names = pool_like_665k.draw_names(arguments.rows)
    images = write_images(place, names.images, not arguments.no_links)
    data = place / "llava_like_665k.json"
    rounds = write_pool(data, names)
    paths = {name for name in names.images if name}
    print(
      f"{len(names.ids):,} rows, {len(set(names.ids)):,} distinct ids,"
      f" {sum(name is not None for name in names.images):,} with image,"
      f" {len(paths):,} distinct paths, {rounds:.2f} rounds a row,"
      f" {data.stat().st_size / 1e6:.0f} MB",
      flush=True,
    )
    read_encoder(MAX_LENGTH)  # is cached, so that its imports are not timed
    start = time.perf_counter()
    found = check(data, images, Path(temporary), MAX_LENGTH)
    seconds = time.perf_counter() - start
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
  lost = found["rows"] - found["ok"]
  print(
    f"checked in {seconds:.1f} s, {peak:.2f} GB peak: {found['rows']:,} rows,"
    f" {found['ok']:,} usable, {lost:,} lost ({lost / found['rows']:.1%})"
  )
  for reason, part in found["aside"].items():
    print(f"  {reason}: {part['rows']:,} ({part['rows'] / found['rows']:.1%})")
  if found["rows"] != arguments.rows or lost:
    sys.exit(1)


def write_images(place: Path, names: list[str | None], links: bool) -> Path:
  """Lays out the image folder; returns it."""
  rng = np.random.default_rng(0)
  folder, disk, drawn = (place / name for name in ("data", "disk", "drawn"))
  for made in (folder, disk, drawn):
    made.mkdir(parents=True)
  originals = []
  for number in range(DISTINCT):
    originals.append(drawn / f"{number}.jpg")
    pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(originals[-1])
  for name in LINKED if links else ():
    (disk / name).mkdir(parents=True, exist_ok=True)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(os.path.relpath(disk / name, (folder / name).parent))
  ready: set[str] = set()
  for number, name in enumerate(sorted({name for name in names if name})):
    parent, path = os.path.dirname(name), folder / name
    if parent not in ready:
      path.parent.mkdir(parents=True, exist_ok=True)
      ready.add(parent)
    os.link(originals[number % DISTINCT], path)
  return folder


def write_pool(path: Path, names: pool_like_665k.Names, seed: int = 0) -> float:
  """Writes the records; returns the mean of their rounds.

  The image's mark stands before or after the first question, as in LLaVA's mix.
  """
  rng = np.random.default_rng([seed, 2])
  count = len(names.ids)
  rounds = rng.geometric(1 / pool_like_665k.ROUNDS, count)
  vocabulary = WORDS.split()
  lengths = collections.deque(rng.integers(2, 10, 2 * int(rounds.sum())).tolist())
  words = rng.integers(0, len(vocabulary), sum(lengths)).tolist()
  at = 0

  def say() -> str:
    nonlocal at
    begin, at = at, at + lengths.popleft()
    return " ".join(vocabulary[word] for word in words[begin:at])

  with open(path, "w") as file:
    for row, (id, image) in enumerate(zip(names.ids, names.images, strict=True)):
      turns = []
      for _ in range(rounds[row]):
        turns += [{"from": "human", "value": say()}, {"from": "gpt", "value": say()}]
      first = turns[0]["value"] = f"{turns[0]['value']} (question {row})"
      record = {"id": id, "conversations": turns}
      if image is not None:
        form = "<image>\n{}" if row % 2 else "{}\n<image>"
        turns[0]["value"] = form.format(first)
        record = {"id": id, "image": image, "conversations": turns}
      file.write(("[" if row == 0 else ",\n") + json.dumps(record))
    file.write("]\n")
  return float(rounds.mean())


if __name__ == "__main__":
  main()
