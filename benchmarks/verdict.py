"""How often a search is right about whether selecting pays, and at which cost.

    python -m benchmarks.verdict --workdir=runs/verdict --pools=12-21,0-31,30-41
    python -m benchmarks.verdict --workdir=runs/verdict --pools=easy-1 --easy=EASY

A pool is named as its comparison in docs/headline/: the share of wrong answers and the
seed of a drawn pool, or `easy` and the seed of a mixture of 8,000 rows of easy-VQA,
whose folder is EASY (pool.json, images/). Each is scored, and a search compares every
strategy of `--strategies` with random rows. `stratified` and `top` are the contrary
cases: by whole tunes the one is as good as random rows, and the other worse. Beside the
difference that the search found stand those of whole tunes, as docs/headline/ has them:
of the same pool, and the mean over all of its kind. What has been made is kept; `--out`
adds the lines to a JSON file.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from mllm_selector_jax.configs import demo, easy_vqa
from mllm_selector_jax.pipeline.search.search_arms import search
from mllm_selector_jax.runs import context
from mllm_selector_jax.stages import COMMANDS

KNOWN = Path("docs/headline")
EASY_ROWS = 8000


def make_config(pool: str, workdir: Path, easy: Path | None) -> Any:
  kind, seed = pool.rsplit("-", 1)
  if kind == "easy":
    cfg = easy_vqa.get_config()
    mixture = workdir / "easy.yaml"
    line = f'{{json_path: {easy}/pool.json, sampling_strategy: "random:{EASY_ROWS}"}}'
    mixture.write_text(f"datasets:\n  - {line}\n")
    cfg.pool.data, cfg.pool.images = str(mixture), f"{easy}/images"
    cfg.evaluate.tasks = f"{easy}/eval.json"
  else:
    cfg = demo.get_config()
    cfg.pool.demo.seed, cfg.pool.demo.wrong = int(seed), int(kind) / 100
  cfg.rng_seed = int(seed)
  cfg.select.search.candidates = 2
  return cfg


def read_known(kind: str, strategy: str, budget: str) -> dict[str, float]:
  """Differences from random after whole tunes, by seed, of a kind of pool."""
  names = {"12": ("12", "rivals", "parts"), "0": ("0", "rivals-0")}.get(kind, (kind,))
  means: dict[tuple[str, str], float] = {}
  for name in names:
    for path in KNOWN.glob(f"{name}-[0-9]*.json"):
      for arm in json.loads(path.read_text())["arms"]:
        if arm["budget"] == budget and path.stem == f"{name}-{arm['seed']}":
          means[arm["strategy"], str(arm["seed"])] = arm["macro"]
  return {
    seed: value - means["random", seed]
    for (name, seed), value in means.items()
    if name == strategy and ("random", seed) in means
  }


def judge(run: Any, strategy: str) -> dict[str, Any]:
  """The verdict of a search that compares a strategy with random rows."""
  result = search(run.at(settings={"select.strategy": strategy}))
  return result["verdict"] | {"steps": result["trials"][-1]["steps"]}


def measure(pool: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
  kind, seed = pool.rsplit("-", 1)
  lines = []
  cfg = make_config(pool, arguments.workdir, arguments.easy)
  cfg.select.budget = arguments.budget
  cfg.select.search.steps = arguments.steps
  with context.open_run(cfg, str(arguments.workdir / pool)) as run:
    for command in ("check", "seed", "score"):
      COMMANDS[command](run)
    for strategy in arguments.strategies.split(","):
      line = {"pool": pool, "budget": arguments.budget, **judge(run, strategy)}
      known = read_known(kind, strategy, arguments.budget)
      line |= {"strategy": strategy, "whole_tune": known.get(seed)}
      line["whole_tunes"] = fmean(known.values()) if known else None
      lines.append(line)
  return lines


def format_line(line: dict[str, Any]) -> str:
  known = [
    "-" if line[name] is None else f"{line[name]:+.3f}"
    for name in ("whole_tune", "whole_tunes")
  ]
  cells = [
    *(line["pool"], f"`{line['strategy']}`", line["budget"]),
    *(f"{line['value']:.3f}", f"{line['random']:.3f}", f"{line['difference']:+.3f}"),
    f"{line['low']:+.3f} to {line['high']:+.3f}",
    *(line["outcome"], f"{line['of_full']:.3f}", *known),
  ]
  return f"| {' | '.join(cells)} |"


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--pools", required=True)
  parser.add_argument("--strategies", default="kl")
  parser.add_argument("--budget", default="20%")
  parser.add_argument("--steps", type=int, help="of both tunes; default: by the cost")
  parser.add_argument("--easy", type=Path)
  parser.add_argument("--out", type=Path)
  arguments = parser.parse_args()
  arguments.workdir.mkdir(parents=True, exist_ok=True)
  lines = []
  for pool in arguments.pools.split(","):
    lines += measure(pool, arguments)
    if arguments.out:
      before = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
      same = {(line["pool"], line["strategy"], line["budget"]) for line in lines}
      kept = [x for x in before if (x["pool"], x["strategy"], x["budget"]) not in same]
      arguments.out.write_text(json.dumps(kept + lines, indent=1) + "\n")
  heads = "pool|strategy|budget|score|random|difference|90 % interval|verdict|FLOPs"
  heads += "|whole tune|mean of the kind"
  print(f"| {' | '.join(heads.split('|'))} |")
  print("|---" * len(heads.split("|")) + "|")
  print("\n".join(format_line(line) for line in lines))


if __name__ == "__main__":
  main()
