"""Searches settings by successive halving; each trial is an arm of `search/`.

All candidates are tuned for a few steps, and the best of them again for more steps,
until one is left (Jamieson and Talwalkar 2016, arXiv:1502.07943). That one is then
tuned beside random rows, which it replaces only if it is better beyond the error.
"""

import dataclasses
import json
import math
from typing import Any

from mllm_selector_jax.inputs.held_out import read_files, read_share
from mllm_selector_jax.pipeline.search import (
  development,
  search_costs,
  search_space,
  search_table,
  verdict,
)
from mllm_selector_jax.pipeline.search.development_files import check_files
from mllm_selector_jax.pipeline.select_arm import select_arm
from mllm_selector_jax.pipeline.tune_arm import kept_rows, tune_arm
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run


def search(run: Run) -> dict[str, Any]:
  """Make `search/`, and return its result; empty if there is no search.

  Returns:
    The content of `trials.json`: "candidates" (settings of `select`), "trials",
    "contender" and "winner" (indices of the candidate that was tuned beside random
    rows, and of the one that makes the selection) and "verdict".
  """
  section = run.cfg.select.search
  if not section.candidates:
    return {}
  candidates = search_space.list_candidates(run.cfg)
  check_files(run)
  read_share(run.cfg)
  control = search_space.find_control(candidates)
  remaining = [number for number in range(len(candidates)) if number != control]
  sizes = list_sizes(len(remaining), section.halving)
  costs, held_out = search_costs.read_costs(run), development.read_split(run)
  measured = search_costs.plan_measure(run.cfg, costs, held_out, sum(sizes))
  steps = search_costs.plan_steps(run.cfg, costs, sizes, measured)
  bench = _Bench(run, candidates, costs, measured)
  trials: list[dict[str, Any]] = []
  while len(remaining) > 1:
    results = bench.run_rung(remaining, steps)
    best = sorted(results, key=_order)
    kept = best[: math.ceil(len(remaining) / section.halving)]
    remaining = sorted(line["candidate"] for line in kept)
    trials += [{**line, "goes_on": line["candidate"] in remaining} for line in results]
    steps *= section.halving
  results = bench.run_rung([remaining[0], control], steps)
  spent = sum(line["flops"] for line in [*trials, *results])
  decided = bench.decide(remaining[0], control, steps, spent)
  winner = remaining[0] if decided["outcome"] == verdict.PAYS else control
  trials += [{**line, "goes_on": line["candidate"] == winner} for line in results]
  result: dict[str, Any] = {"candidates": candidates, "trials": trials}
  result["verdict"] = decided
  result |= {"contender": remaining[0], "winner": winner}
  _write(run, result)
  return result


def read_own(result: dict[str, Any], strategy: str) -> dict[str, Any]:
  """Return the best settings that a search has found for one strategy.

  Args:
    result: The search's result, from `search`; it may be empty.
    strategy: The strategy of the config.

  Returns:
    The settings without the strategy; empty without a search.
  """
  if not result:
    return {}
  candidates, trials = result["candidates"], result["trials"]
  own = [
    line for line in trials if candidates[line["candidate"]]["strategy"] == strategy
  ]
  best = min(own, key=lambda line: (-line["steps"], *_order(line)))
  settings = dict(candidates[best["candidate"]])
  del settings["strategy"]
  return settings


def list_sizes(contenders: int, halving: int) -> list[int]:
  """Return the number of trials of each rung; the last has one beside random rows."""
  sizes = []
  while contenders > 1:
    sizes.append(contenders)
    contenders = math.ceil(contenders / halving)
  return [*sizes, 2]


def _order(line: dict[str, Any]) -> tuple[float, int]:
  return -line["value"], line["candidate"]


@dataclasses.dataclass(frozen=True)
class _Bench:
  """What all trials of a search have in common.

  Attributes:
    run: The run of the search's result.
    candidates: The settings of each candidate.
    costs: The FLOPs of the pool's rows.
    measured: The held-out rows on which trials are measured.
  """

  run: Run
  candidates: list[dict[str, Any]]
  costs: search_costs.Costs
  measured: development.Split

  @property
  def trials(self) -> Run:
    """The run whose arms are the trials."""
    return self.run.at(self.run.workdir.at_search())

  def run_rung(self, numbers: list[int], steps: int) -> list[dict[str, Any]]:
    """Run a trial of each of these candidates, with the same number of steps."""
    results = []
    for index, number in enumerate(numbers):
      self.run.say(
        f"search: {steps} steps, candidate {number} ({index + 1} of {len(numbers)}):"
        f" {search_table.describe(self.candidates[number], self.candidates[0])}"
      )
      results.append(self._run_trial(number, steps))
    return results

  def _run_trial(self, number: int, steps: int) -> dict[str, Any]:
    """Run a trial: select, tune, and measure on the development split."""
    trials, name, cfg = self.trials, name_trial(number, steps), self.run.cfg
    select_arm(trials, name, budget=cfg.select.budget, **self.candidates[number])
    tune_arm(trials, name, steps)
    development.measure_arm(trials, name, self.measured)
    path = trials.workdir.evaluation(name).path / "results.json"
    results = json.loads(path.read_text())
    rows = kept_rows(trials, name)
    tuned = self.costs.count_tune(rows, steps, cfg.tune.batch)
    return {
      "candidate": number,
      "steps": steps,
      "rows": len(rows),
      "flops": tuned + results.get("flops", 0.0),
      "value": development.read_measure(trials, name, self.measured).value,
      "parts": {task: part["value"] for task, part in results["tasks"].items()},
      "tuned": trials.workdir.tuned(name).digest(),
    }

  def decide(
    self, contender: int, control: int, steps: int, spent: float
  ) -> dict[str, Any]:
    """Compare the trial of the contender with that of random rows."""
    cfg = self.run.cfg
    chosen, drawn = (
      development.read_measure(self.trials, name_trial(number, steps), self.measured)
      for number in (contender, control)
    )
    decided = verdict.judge(chosen, drawn, cfg.select.search.level)
    decided |= {
      "strategy": self.candidates[contender]["strategy"],
      "questions_are": "questions" if read_files(cfg) else "held-out rows",
      "flops": spent,
      "of_full": spent / self.costs.full,
    }
    return decided | {"statement": verdict.describe(decided, cfg.select.strategy)}


def name_trial(number: int, steps: int) -> str:
  """Return the name of the arm of a candidate that is tuned for so many steps."""
  return f"c{number:02d}-{steps}"


def _write(run: Run, result: dict[str, Any]) -> None:
  section = run.cfg.select.search
  recipe = run.recipe(
    "select",
    {
      "candidates": result["candidates"],
      "development": str(section.development),
      "level": section.level,
      "measured": result["verdict"]["questions"],
    },
    {
      name_trial(line["candidate"], line["steps"]): line["tuned"]
      for line in result["trials"]
    },
  )

  def build(folder):
    artifacts.write_json(folder / "trials.json", result)
    text = search_table.format_table(result)
    artifacts.write_text(folder / "table.md", text)
    run.say(f"search: the trials, on the development split\n\n{text}")

  run.make(run.workdir.search, recipe, build)
  run.say(f"search: {result['verdict']['statement']}")
