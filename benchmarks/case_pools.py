"""What `check` makes of a folder of small pools: one Markdown table.

    python -m benchmarks.case_pools --cases=DIR [--out=FILE.md] [--only=PREFIX]

Each folder in DIR is a kind. Its inputs are its files, and its folders that hold pool
files; its `images/` is the image folder, or where there is none a `playground/data/`.
Where a text names paths as `ROOT/...`, a copy of it with DIR's absolute path instead is
read. A small file in an image folder that holds nothing but the path of a folder stands
for a link, and is one in the copy that is read. The settings are those of
`--config=demo`. The exit status is 1 if anything but an InputError ends a check.
"""

import argparse
import collections
import contextlib
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mllm_selector_jax.configs import demo
from mllm_selector_jax.data.pool.pool_check import check_pool
from mllm_selector_jax.data.tokens.conversation import Encoder
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.runs.console import Console
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.types import InputError

TEXTS = (".json", ".jsonl", ".yaml", ".yml")
POOLS = (*TEXTS, ".parquet", ".tar", ".arrow", ".gz", ".zst")
IMAGES = ("images", "playground/data")
LINKED = ("disk", "playground")  # folders that image folders lead to
MOST_LINK = 200  # bytes of a file that stands for a link
MOST_TEXT = 300  # characters of an error in the table
HEAD = ("input", "rows", "usable", "set aside, or the error")


class Outcome(NamedTuple):
  """What became of one input.

  Attributes:
    name: of the input, below DIR.
    rows, usable: None where the check ended with an error.
    text: what was set aside by reason, or the error.
    broken: whether the error is not the user's.
  """

  name: str
  rows: int | None
  usable: int | None
  text: str
  broken: bool = False


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--cases", required=True, type=Path)
  parser.add_argument("--out", type=Path, help="a Markdown file to write")
  parser.add_argument("--only", default="", help="inputs whose names begin so")
  arguments = parser.parse_args()
  cases = arguments.cases.resolve()
  outcomes = [
    examine(cases, path)
    for path in list_inputs(cases)
    if str(path.relative_to(cases)).startswith(arguments.only)
  ]
  text = format_table(outcomes)
  print(text, end="")
  if arguments.out:
    arguments.out.write_text(text)
  sys.exit(any(outcome.broken for outcome in outcomes))


def list_inputs(cases: Path) -> Iterator[Path]:
  """Every file and folder that is to be checked, by name."""
  for kind in sorted(path for path in cases.iterdir() if path.is_dir()):
    for path in sorted(kind.iterdir()):
      if path.is_dir():
        if path.name != "images" and not path.name.startswith(LINKED):
          yield from _list_folders(path)
      elif path.name.endswith(POOLS):
        yield path


def _list_folders(folder: Path) -> Iterator[Path]:
  """A folder with pool files in it; of others themselves and those inside."""
  inside = sorted(folder.iterdir())
  yield folder
  if not any(path.is_file() and path.name.endswith(POOLS) for path in inside):
    for path in inside:
      if path.is_dir():
        yield from _list_folders(path)


def examine(cases: Path, path: Path) -> Outcome:
  """Checks one input; an error is part of the outcome."""
  name = str(path.relative_to(cases)) + ("/" if path.is_dir() else "")
  kind = cases / path.relative_to(cases).parts[0]
  with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
    stack.enter_context(contextlib.chdir(cases))

    def shorten(text: str) -> str:
      for long in (place, str(cases)):
        text = text.replace(f"{long}/", "").replace(long, ".")
      return text

    try:
      images = find_images(kind, Path(place))
      found = check(write_roots(cases, path, Path(place)), images, Path(place))
    except InputError as error:
      return Outcome(name, None, None, _join_lines(shorten(str(error))))
    except Exception as error:
      text = f"{type(error).__name__}: {error}"
      return Outcome(name, None, None, _join_lines(shorten(text)), broken=True)
  aside = [f"{reason} {part['rows']}" for reason, part in found["aside"].items()]
  return Outcome(name, found["rows"], found["ok"], ", ".join(aside))


@functools.cache
def read_encoder(max_length: int | None = None) -> Encoder:
  """The demo base's way from records to tokens and tiles; see `check`."""
  cfg = demo.get_config()
  cfg.model.max_length = max_length or cfg.model.max_length
  nowhere = Path(os.devnull)
  run = Run(cfg, Workdir(nowhere), Console(nowhere))
  return base_model.read_encoder(run)


def check(
  data: Path, images: Path | None, place: Path, max_length: int | None = None
) -> dict[str, Any]:
  """The check as the command does it; returns its summary.

  Args:
    data: what `pool.data` names.
    images: the image folder.
    place: a folder for the table.
    max_length: tokens of a row; None for the demo's.
  """
  cfg = demo.get_config()
  return check_pool(
    [str(data)],
    images and str(images),
    read_encoder(max_length),
    cfg.pool.max_pixels,
    place / "pool.parquet",
    duplicate_ids=cfg.pool.duplicate_ids,
    long_rows=cfg.pool.long_rows,
    source=cfg.pool.source,
    max_images=cfg.pool.max_images,
  )


def write_roots(cases: Path, path: Path, place: Path) -> Path:
  """The input, or a copy of it whose paths begin with the folder of all cases."""
  if path.is_dir() or not path.name.endswith(TEXTS):
    return path
  data = path.read_bytes()
  if b"ROOT/" not in data:
    return path
  copy = place / path.relative_to(cases)
  copy.parent.mkdir(parents=True)
  copy.write_bytes(data.replace(b"ROOT/", f"{cases}/".encode()))
  return copy


def find_images(kind: Path, place: Path) -> Path | None:
  """The image folder of a kind; a copy with links where files stand for them."""
  for name in IMAGES:
    if (folder := kind / name).is_dir():
      links = list(_find_links(folder))
      if not links:
        return folder
      copy = place / "links" / kind.name
      shutil.copytree(kind, copy, symlinks=True)
      for path, target in links:
        made = copy / path.relative_to(kind)
        made.parent.chmod(0o755)
        made.unlink()
        made.symlink_to(target)
      return copy / name
  return None


def _find_links(folder: Path) -> Iterator[tuple[Path, str]]:
  for path in sorted(folder.rglob("*")):
    if path.is_file() and not path.is_symlink() and path.stat().st_size < MOST_LINK:
      with contextlib.suppress(UnicodeDecodeError, OSError, ValueError):
        target = path.read_text().strip()
        if target and (path.parent / target).is_dir():
          yield path, target


def format_table(outcomes: list[Outcome]) -> str:
  """The outcomes as Markdown, with their sums below."""
  lines = ["| " + " | ".join(HEAD) + " |", "|---|--:|--:|---|"]
  for one in outcomes:
    counts = ("-" if count is None else str(count) for count in (one.rows, one.usable))
    cells = (f"`{one.name}`", *counts, one.text.replace("|", "\\|"))
    lines.append("| " + " | ".join(cells) + " |")
  read = [one for one in outcomes if one.rows is not None]
  kinds = collections.Counter(one.broken for one in outcomes if one.rows is None)
  rows, usable = (
    sum(column) for column in ([o.rows for o in read], [o.usable for o in read])
  )
  lines += [
    "",
    f"{len(outcomes)} inputs: {len(read)} read ({rows} rows, {usable} usable),"
    f" {kinds[False]} refused, {kinds[True]} ended by another error.",
  ]
  return "\n".join(lines) + "\n"


def _join_lines(text: str) -> str:
  """The first line of a message, and what it lists below, on one line."""
  lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
  joined = " / ".join(lines)
  return joined if len(joined) <= MOST_TEXT else joined[: MOST_TEXT - 1] + "…"


if __name__ == "__main__":
  main()
