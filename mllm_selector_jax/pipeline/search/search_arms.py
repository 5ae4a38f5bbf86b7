"""Searches settings by successive halving; each trial is an arm of `search/`.

All candidates are tuned for a few steps, and the best of them again for more steps,
until one is left (Jamieson and Talwalkar 2016, arXiv:1502.07943).
"""

import json
import math
from typing import Any

import numpy as np

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.held_out import read_share
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.pipeline import flops, select_arm
from mllm_selector_jax.pipeline.search import development, search_space
from mllm_selector_jax.pipeline.search.development_files import check_files
from mllm_selector_jax.pipeline.tune_arm import kept_rows, tune_arm
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run


def search(run: Run) -> dict[str, Any]:
  """Make `search/`, and return the winning settings; empty if there is no search."""
  section = run.cfg.select.search
  if not section.candidates:
    return {}
  candidates = search_space.list_candidates(run.cfg)
  check_files(run)
  read_share(run.cfg)
  remaining, steps, trials = list(range(len(candidates))), section.steps, []
  while len(remaining) > 1:
    results = []
    for index, number in enumerate(remaining):
      run.say(
        f"search: {steps} steps, candidate {number} ({index + 1} of {len(remaining)}):"
        f" {describe(candidates[number], candidates[0])}"
      )
      results.append(_run_trial(run, number, candidates[number], steps))
    best = sorted(results, key=lambda line: (-line["value"], line["candidate"]))
    remaining = [
      line["candidate"] for line in best[: math.ceil(len(remaining) / section.halving)]
    ]
    trials += [{**line, "goes_on": line["candidate"] in remaining} for line in results]
    steps *= section.halving
  winner = candidates[remaining[0]]
  _write(run, candidates, trials, remaining[0])
  return winner


def _run_trial(
  run: Run, number: int, settings: dict[str, Any], steps: int
) -> dict[str, Any]:
  """Run a trial: select, tune, and measure on the development split."""
  name, cfg = f"c{number:02d}-{steps}", run.cfg.select
  search_run = run.at(run.workdir.at_search())
  select_arm.select_arm(search_run, name, cfg.strategy, cfg.budget, **settings)
  tune_arm(search_run, name, steps)
  development.measure_arm(search_run, name)
  path = search_run.workdir.evaluation(name).path / "results.json"
  results = json.loads(path.read_text())
  rows = kept_rows(search_run, name)
  return {
    "candidate": number,
    "steps": steps,
    "rows": len(rows),
    "flops": _tune_flops(search_run, rows, steps),
    "value": results["macro"]["value"],
    "parts": {task: part["value"] for task, part in results["tasks"].items()},
    "tuned": search_run.workdir.tuned(name).digest(),
  }


def _tune_flops(run: Run, rows: np.ndarray, steps: int) -> float:
  """Count the FLOPs of tuning on some rows, in the same way as a comparison does."""
  config = huggingface.read_config(
    base_model.base_path(run), dtype=base_model.dtype(run)
  )
  rates = flops.make_row_rates(config, run.cfg.tune)
  row_costs = flops.row_flops(config, rates, base_model.open_pool(run))
  samples = flops.count_samples(len(rows), steps, run.cfg.tune.batch)
  return float(row_costs[rows].mean()) * samples


def _write(run: Run, candidates: list[dict], trials: list[dict], winner: int) -> None:
  recipe = run.recipe(
    "select",
    {"candidates": candidates, "development": str(run.cfg.select.search.development)},
    {f"c{line['candidate']:02d}-{line['steps']}": line["tuned"] for line in trials},
  )

  def build(folder):
    result = {"candidates": candidates, "trials": trials, "winner": winner}
    artifacts.write_json(folder / "trials.json", result)
    lines = list_lines(result)
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    text = text.replace("\n", "\n" + "|---" * len(lines[0]) + "|\n", 1)
    artifacts.write_text(folder / "table.md", text)
    run.say(f"search: the trials, on the development split\n\n{text}")

  run.make(run.workdir.search, recipe, build)
  run.say(
    f"search: candidate {winner} won: {describe(candidates[winner], candidates[0])}"
  )


def describe(settings: dict[str, Any], first: dict[str, Any]) -> str:
  """Describe how a candidate differs from the first one, the config's settings."""
  words = [
    f"{name} {value}" for name, value in settings.items() if value != first[name]
  ]
  return ", ".join(words) or "the config's own settings"


def list_lines(result: dict[str, Any]) -> list[list[str]]:
  """Return the trials as rows of a table, under a header.

  Trials with more steps come first, and among these the more accurate ones.
  """
  first = result["candidates"][0]
  lines = [["candidate", "settings", "steps", "rows", "FLOPs", "accuracy", "outcome"]]
  last_steps = max(line["steps"] for line in result["trials"])
  for line in sorted(result["trials"], key=_order):
    won = "won" if line["steps"] == last_steps else "went on"
    lines.append(
      [
        str(line["candidate"]),
        describe(result["candidates"][line["candidate"]], first),
        f"{line['steps']:,}",
        f"{line['rows']:,}",
        f"{line['flops']:.2e}"
        if "flops" in line
        else "-",  # older versions did not count them
        f"{line['value']:.4f}",
        won if line["goes_on"] else "dropped",
      ]
    )
  return lines


def _order(line: dict[str, Any]) -> tuple:
  return -line["steps"], -line["value"], line["candidate"]
