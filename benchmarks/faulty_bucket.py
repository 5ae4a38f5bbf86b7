"""Whole runs in a bucket whose answers are spoilt, killed at random moments.

    python -m benchmarks.faulty_bucket [--kills=20] [--share=0.04] [--seed=0]

A server of the protocol of Google Cloud Storage (fake-gcs-server) runs on this machine,
behind a proxy (tests/faulty_proxy.py) that answers a share of the requests with 503 or
429, late, not at all or not to the end, does some without answering, and shuffles
listings. The command `run` works in the bucket, and is killed after a random time until
so many kills are done; after each the machine is lost, with the folder that the process
worked in. When the run has ended, every file in the bucket has to be that of a run in a
folder.
"""

import argparse
import os
import pathlib
import shutil
import tempfile
import time

import numpy as np

from mllm_selector_jax import demo
from tests import faulty_proxy, gcs, small_run
from tests.models import tiny
from tests.real_processes import Forked, write_config
from tests.stages.test_bucket import read_bucket

SETTINGS = {
  "pool.demo.rows": 0,
  "seed.rows": "24",
  "seed.batch": 4,
  "seed.save_every": 2,
  "select.control": False,
  "score.part_rows": 16,
}
PATIENCE = 1800  # seconds, after which a run is taken to hang
# They name the workdir, or hold times.
NAMED = {"report.html", "report.provenance.json", "explorer.html", "times.json"}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--share", type=float, default=0.04, help="of spoilt requests")
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args()
  rng = np.random.default_rng(arguments.seed)
  faults = faulty_proxy.Faults(arguments.share, arguments.seed)
  with tempfile.TemporaryDirectory() as name, gcs.serve() as bucket:
    place = pathlib.Path(name)
    scratch = place / "scratch"
    scratch.mkdir()
    os.environ["TMPDIR"] = str(scratch)
    base = tiny.make_base(place / "base")
    config = write_config(place / "config.py", base, **SETTINGS, **draw(place / "pool"))
    with gcs.spoil(faults):  # before the first fork, which takes the environment
      hit_and_compare(f"{bucket}/run", place, config, arguments.kills, rng)
  print(f"faults: {dict(faults.made)}")


def draw(folder: pathlib.Path) -> dict[str, str]:
  """Draws a pool and questions outside the workdir, and returns their settings."""
  folder.mkdir()
  demo.draw_pool(folder, demo.PoolOptions(rows=60, seed=0))
  questions = folder / "evaluation"
  demo.draw_evaluation(questions, demo.EvaluationOptions(questions=1, seed=0))
  return {
    "pool.data": str(folder / "pool.json"),
    "pool.images": str(folder / "images"),
    "evaluate.tasks": str(questions / "eval.jsonl"),
    "evaluate.images": str(questions / "images"),
  }


def hit_and_compare(url, place, config, kills, rng) -> None:
  """Kills runs, lets the last one end, and compares the bucket with a folder."""
  begun = time.monotonic()
  status, said = Forked(place / "local", config, "run").end(PATIENCE)
  assert status == 0, said
  seconds, done, failed = time.monotonic() - begun, 0, 0
  while True:
    process = Forked(url, config, "run")
    until = time.monotonic() + rng.uniform(0, 2 * seconds)
    while done < kills and process.poll() is None and time.monotonic() < until:
      time.sleep(0.01)
    if done < kills and process.poll() is None:
      process.kill()
    status, said = process.end(PATIENCE)
    shutil.rmtree(place / "scratch/mllm-selector", ignore_errors=True)
    last = said.strip().splitlines()[-1:] or [""]
    print(f"status {status}: {last[0][:120]}", flush=True)
    if status == 0:
      break
    done += status == -9
    failed += status == 1
    assert status in (-9, 1) and failed < 20, said
  wanted, found = small_run.read_bytes(place / "local"), read_bucket(url)
  names = sorted(wanted.keys() - NAMED)
  missing = [n for n in names if n not in found]
  different = [n for n in names if found.get(n, wanted[n]) != wanted[n]]
  print(f"{done} kills, {failed} runs ended by faults; missing: {missing}")
  print(f"{len(names)} files compared, different: {different}", flush=True)


if __name__ == "__main__":
  main()
