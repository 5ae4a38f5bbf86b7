"""Successive halving over candidate settings; each trial is an arm of `search/`.

Jamieson and Talwalkar 2016 (arXiv:1502.07943): all candidates are tuned for a few
steps, the best part goes on with more, until one is left.
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
  """Makes `search/`, and gives the settings that won; none without a search."""
  own = run.cfg.select.search
  if not own.candidates:
    return {}
  every = search_space.list_candidates(run.cfg)
  check_files(run)
  read_share(run.cfg)
  left, steps, trials = list(range(len(every))), own.steps, []
  while len(left) > 1:
    found = []
    for place, number in enumerate(left):
      run.say(
        f"search: {steps} steps, candidate {number} ({place + 1} of {len(left)}):"
        f" {describe(every[number], every[0])}"
      )
      found.append(_try(run, number, every[number], steps))
    best = sorted(found, key=lambda line: (-line["value"], line["candidate"]))
    left = [line["candidate"] for line in best[: math.ceil(len(left) / own.halving)]]
    trials += [{**line, "goes_on": line["candidate"] in left} for line in found]
    steps *= own.halving
  winner = every[left[0]]
  _write(run, every, trials, left[0])
  return winner


def _try(run: Run, number: int, settings: dict[str, Any], steps: int) -> dict[str, Any]:
  """One trial: selection, tune and its measure on the development split."""
  name, cfg = f"c{number:02d}-{steps}", run.cfg.select
  place = run.at(run.workdir.at_search())
  select_arm.select_arm(place, name, cfg.strategy, cfg.budget, **settings)
  tune_arm(place, name, steps)
  development.measure_arm(place, name)
  path = place.workdir.evaluation(name).path / "results.json"
  found = json.loads(path.read_text())
  rows = kept_rows(place, name)
  return {
    "candidate": number,
    "steps": steps,
    "rows": len(rows),
    "flops": _tune_flops(place, rows, steps),
    "value": found["macro"]["value"],
    "parts": {task: part["value"] for task, part in found["tasks"].items()},
    "tuned": place.workdir.tuned(name).digest(),
  }


def _tune_flops(run: Run, rows: np.ndarray, steps: int) -> float:
  """FLOPs of tuning for so many steps on these rows, as a comparison counts them."""
  config = huggingface.read_config(
    base_model.base_path(run), dtype=base_model.dtype(run)
  )
  each = flops.row_flops(
    flops.make_row_rates(config, run.cfg.tune), base_model.open_pool(run)
  )
  seen = flops.count_samples(len(rows), steps, run.cfg.tune.batch)
  return float(each[rows].mean()) * seen


def _write(run: Run, every: list[dict], trials: list[dict], winner: int) -> None:
  recipe = run.recipe(
    "select",
    {"candidates": every, "development": str(run.cfg.select.search.development)},
    {f"c{line['candidate']:02d}-{line['steps']}": line["tuned"] for line in trials},
  )

  def build(folder):
    result = {"candidates": every, "trials": trials, "winner": winner}
    artifacts.write_json(folder / "trials.json", result)
    lines = list_lines(result)
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    text = text.replace("\n", "\n" + "|---" * len(lines[0]) + "|\n", 1)
    artifacts.write_text(folder / "table.md", text)
    run.say(f"search: the trials, on the development split\n\n{text}")

  run.make(run.workdir.search, recipe, build)
  run.say(f"search: candidate {winner} won: {describe(every[winner], every[0])}")


def describe(settings: dict[str, Any], first: dict[str, Any]) -> str:
  """What differs from the config's own settings."""
  words = [
    f"{name} {value}" for name, value in settings.items() if value != first[name]
  ]
  return ", ".join(words) or "the config's own settings"


def list_lines(result: dict[str, Any]) -> list[list[str]]:
  """The trials as text, a head first: the best of the most steps on top."""
  first = result["candidates"][0]
  lines = [["candidate", "settings", "steps", "rows", "FLOPs", "accuracy", "then"]]
  most = max(line["steps"] for line in result["trials"])
  for line in sorted(result["trials"], key=_order):
    won = "won" if line["steps"] == most else "went on"
    lines.append(
      [
        str(line["candidate"]),
        describe(result["candidates"][line["candidate"]], first),
        f"{line['steps']:,}",
        f"{line['rows']:,}",
        f"{line['flops']:.2e}" if "flops" in line else "-",  # of an older version
        f"{line['value']:.4f}",
        won if line["goes_on"] else "dropped",
      ]
    )
  return lines


def _order(line: dict[str, Any]) -> tuple:
  return -line["steps"], -line["value"], line["candidate"]
