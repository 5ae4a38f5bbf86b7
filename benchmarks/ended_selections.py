"""Selections that compare embeddings, killed and gone on with: rows and seconds.

    python -m benchmarks.ended_selections --folder=DIR --strategy=k_center --rows=600000

Each run is a process of its own on drawn rows. The first is not killed, the others are
sent SIGKILL after the seconds of `--kills`, and the last one ends by itself. What their
loops did is kept in DIR, which is emptied first. Each loop tells where it begins.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import shutil
import time
from pathlib import Path

import numpy as np

from benchmarks.pairwise import make_rows
from mllm_selector_jax.pipeline import kept_work
from mllm_selector_jax.selection import groups, strategies
from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.overseer import NOBODY, Overseer


def select(arguments, folder: Path | None) -> None:
  """Makes the selection, and prints where loops begin and a hash of the ranks."""
  rng, rows = np.random.default_rng(0), arguments.rows
  start = time.monotonic()

  @contextlib.contextmanager
  def watch(title, unit="row"):
    told = []

    def update(done, total):
      if not told and "pass" not in title:
        seconds = time.monotonic() - start
        print(f"  {seconds:.1f} s: {title}, {done:,} of {total:,} {unit}s", flush=True)
      told.append(done)

    yield update

  kept_work.EVERY = arguments.every
  keep = NOBODY.keep if folder is None else kept_work.KeptWork(folder, print).keep
  scores = Scores(
    necessity=rng.exponential(size=rows),
    key=rng.integers(0, 2**64, rows, dtype=np.uint64),
    embeddings=make_rows(rows, arguments.width),
    overseer=Overseer(watch, keep),
  )
  sources = groups.Groups(rng.integers(0, 9, rows).astype(np.int32), tuple("abcdefghi"))
  options = SelectOptions(arguments.strategy, within=arguments.within, bound="none")
  start = time.monotonic()
  chosen = strategies.select(scores, sources, arguments.budget, 0, options)
  digest = hashlib.sha256(chosen.rank.tobytes() + chosen.gain.tobytes()).hexdigest()
  print(f"  {time.monotonic() - start:.1f} s: the end, {digest[:16]}", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--folder", type=Path, required=True)
  parser.add_argument("--strategy", default="k_center")
  parser.add_argument("--within", default="uniform")
  parser.add_argument("--rows", type=int, default=600_000)
  parser.add_argument("--width", type=int, default=64)
  parser.add_argument("--budget", default="20000")
  parser.add_argument("--kills", default="15,25", help="seconds after a start")
  parser.add_argument("--every", type=float, default=5.0, help="seconds between writes")
  arguments = parser.parse_args()
  shutil.rmtree(arguments.folder, ignore_errors=True)
  context = multiprocessing.get_context("spawn")
  for seconds in ("", *arguments.kills.split(","), ""):
    first = not arguments.folder.exists() and not seconds
    print(f"killed after {seconds} s:" if seconds else "to the end:", flush=True)
    folder = None if first else arguments.folder
    process = context.Process(target=select, args=(arguments, folder))
    process.start()
    process.join(float(seconds) if seconds else None)
    process.kill()
    process.join()
    files = [path for path in arguments.folder.rglob("*.npz")]
    size = sum(path.stat().st_size for path in files)
    print(f"  kept: {size / 1e6:,.1f} MB in {len(files)} files", flush=True)


if __name__ == "__main__":
  main()
