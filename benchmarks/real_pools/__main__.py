"""Makes pools of third-party images and questions in this project's formats.

    python -m benchmarks.real_pools --source=DIR --out=DIR [--pools=rooms,signs]
      [--easy_vqa=DIR]

`--source` holds the raw sources (see `benchmarks.real_pools.sources`). Each pool of
the table below gets a folder: `pool.json` in LLaVA's form, `images/`, `eval.jsonl` in
the form of docs/evaluation.md, on images that the pool does not have, and `tasks.json`
with the kind of question of each row. With `--easy_vqa`, the folder of easy-VQA in
LLaVA's form, `mixture/` is made of all pools (see `benchmarks.real_pools.mixture`).
What is there already is kept. A pool.json other than the one that results were
measured on ends the command with an error.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.real_pools import emoji, photos, rooms, signs
from benchmarks.real_pools.mixture import make_mixture
from benchmarks.real_pools.rows import make_pool
from mllm_selector_jax.types import InputError

POOLS = {module.POOL.name: module.POOL for module in (rooms, signs, photos, emoji)}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--source", type=Path, required=True)
  parser.add_argument("--out", type=Path, required=True)
  parser.add_argument("--pools", default=",".join(POOLS))
  parser.add_argument("--easy_vqa", type=Path)
  arguments = parser.parse_args()
  wanted = arguments.pools.split(",")
  if unknown := sorted(set(wanted) - set(POOLS)):
    parser.error(f"--pools names {unknown[0]!r}; there are {', '.join(POOLS)}.")
  try:
    for name in wanted:
      make_pool(POOLS[name], arguments.source, arguments.out)
      print(f"{name}: {arguments.out / name}", flush=True)
    if arguments.easy_vqa:
      make_mixture(arguments.source, arguments.out, arguments.easy_vqa)
      print(f"mixture: {arguments.out / 'mixture'}", flush=True)
  except InputError as error:
    sys.exit(str(error))


if __name__ == "__main__":
  main()
