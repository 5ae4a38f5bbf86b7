"""Labelled pictures for the tower of the real base: what real pools leave over.

    python -m benchmarks.real_labelled --source=RAW --out=DIR
    python -m benchmarks.real_base --out=BASE --labelled=DIR/labelled.jsonl \
      --exclude=POOLS/photos/images --exclude=POOLS/emoji/images

Photographs of CIFAR-10 whose numbers are above those that `real_pools` reads, and the
emoji of both its drawings; `--exclude` then leaves out what is in a pool or asked. RAW
is the folder of sources that `real_pools` reads. An emoji's caption tells its group
only, while its labels, which the tower alone learns, are also its name's words.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.real_pools import emoji, photos

FIRST = 3000  # the first number of a photograph; pools read up to 1,199


class Labelled(NamedTuple):
  """The file of a picture, and what `real_pictures.read_labelled` reads of it."""

  data: bytes
  caption: str
  labels: tuple[str, ...]


def read_photos(source: Path, count: int) -> Iterator[Labelled]:
  """Yields so many photographs of each class."""
  classes = {
    f"train/{label}/{number:04d}.jpg": told
    for label, told in photos.CLASSES.items()
    for number in range(FIRST, FIRST + count)
  }
  for name, data in photos.SOURCE.read(source, classes):
    thing, kind, *_ = classes[name]
    article = "an" if thing[0] in "aeiou" else "a"
    labels = (f"{thing} photo", f"{kind} photo", "photo")
    yield Labelled(data, f"a photo of {article} {thing}.", labels)


def read_emoji(source: Path) -> Iterator[Labelled]:
  """Yields the emoji of all drawings, those of people in one tone of skin."""
  records = json.loads(emoji.DRAWINGS["twitter"].read_one(source, "emoji.json"))
  for drawing, package in emoji.DRAWINGS.items():
    files = {
      f"img/{drawing}/64/{one['image']}": one
      for one in records
      if one[f"has_img_{drawing}"]
    }
    for name, data in package.read(source, files):
      one = files[name]
      group, kind = one["category"].lower(), emoji.simplify(one["subcategory"])
      words = [word for word in (one["name"] or "").lower().split() if len(word) > 2]
      labels = (f"{group} emoji", f"{kind} emoji", *words)
      yield Labelled(data, f"a small picture of the group {group}.", labels)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--source", type=Path, required=True)
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--photos", type=int, default=600, help="of each class")
  arguments = parser.parse_args()
  (arguments.out / "images").mkdir(parents=True)
  lines = []
  for read in (read_photos(arguments.source, arguments.photos),
               read_emoji(arguments.source)):  # fmt: skip
    for picture in read:
      name = f"images/{len(lines):06d}"
      (arguments.out / name).write_bytes(picture.data)
      line = {"image": name, "caption": picture.caption, "labels": picture.labels}
      lines.append(json.dumps(line) + "\n")
  (arguments.out / "labelled.jsonl").write_text("".join(lines))
  print(f"{len(lines):,} pictures, see {arguments.out}")


if __name__ == "__main__":
  main()
