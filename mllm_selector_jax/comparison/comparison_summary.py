"""The figures of a comparison: means over seeds, paired differences, overlaps."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.comparison.comparison_plan import (
  BASELINES,
  FULL,
  INCUMBENT,
  POOL,
  RANDOM,
  REFERENCE,
  Arm,
  Plan,
)
from mllm_selector_jax.evaluation import intervals
from mllm_selector_jax.pipeline.tune_arm import kept_rows
from mllm_selector_jax.runs.context import Run

MACRO, OVERALL = "macro", "overall"
LEVEL = 0.05  # the adjusted p-value below which a difference gets a star
# The names of differences, each with a function that returns the arm to subtract from
# an arm. `first` is the strategy with which the others are compared.
DIFFERENCES = {
  "minus_random": lambda arm, first: Arm(RANDOM, arm.budget),
  "minus_full": lambda arm, first: POOL,
  "minus_reference": lambda arm, first: INCUMBENT,
  "minus_first": lambda arm, first: Arm(first, arm.budget),
}


def find_first(strategies: Sequence[str]) -> str:
  """Returns the first strategy that is no control, with which others are compared."""
  return next(
    name for name in (*strategies, "") if name not in (RANDOM, FULL, REFERENCE)
  )


def summarise(run: Run, plan: Plan) -> dict[str, Any]:
  """Reads the results of all arms and seeds, and computes the figures.

  Returns:
    The content of results.json: "plan"; "arms", one entry for each arm and seed, with
    its rows, steps and scores; "tasks_left_out", the tasks that not all arms have;
    "table" (see `tabulate`); and "overlap" (see `overlap`).
  """
  lines, kept = [], {}
  for seed, arm in itertools.product(plan.seeds, plan.arms):
    name = arm.name(seed)
    kept[arm, seed] = kept_rows(run, name)
    tuned = run.workdir.tuned(name).path / "metrics.jsonl"
    results = run.workdir.evaluation(name).path / "results.json"
    scores = json.loads(results.read_text())
    lines.append(
      {
        "arm": name,
        **arm._asdict(),
        "seed": seed,
        "rows": len(kept[arm, seed]),
        "steps": len(tuned.read_text().splitlines()),
        MACRO: scores[MACRO]["value"],
        OVERALL: scores[OVERALL]["value"],
        "tasks": {task: part["value"] for task, part in scores["tasks"].items()},
      }
    )
  strategies = list(dict.fromkeys(arm.strategy for arm in plan.arms))
  task_sets = [set(line["tasks"]) for line in lines]
  shared = set.intersection(*task_sets)
  return {
    "plan": {
      "seeds": plan.seeds,
      "strategies": strategies,
      "first": find_first(strategies),
      "budgets": list(dict.fromkeys(a.budget for a in plan.arms if a not in BASELINES)),
      "match": plan.match,
      "fresh_pools": plan.fresh_pools,
      "variants": plan.variants,
      "published": plan.published,
    },
    "arms": lines,
    "tasks_left_out": sorted(set.union(*task_sets) - shared),
    "table": tabulate(lines, sorted(shared), find_first(strategies)),
    "overlap": list(overlap(kept, plan)),
  }


def tabulate(
  lines: Sequence[dict[str, Any]], tasks: Sequence[str], first: str = ""
) -> list[dict[str, Any]]:
  """Computes means over seeds and paired differences, for each arm and part.

  Args:
    lines: one entry for each arm and seed, as `summarise` makes them, with the same
      seeds in the same order for every arm.
    tasks: the tasks that all arms have.
    first: the strategy with which the others are compared.

  Returns:
    One entry for each arm and part, with the keys:
      "strategy", "budget": the arm.
      "part": "macro", "overall" or "task".
      "task": the name of the task; None for the other parts.
      "rows": the mean number of rows.
      "seeds": the number of seeds.
      "mean": value, low and high of the score.
      "of_full": the same of the score divided by that of the full pool; None if there
        is no such arm or its score is 0.
      "minus_random", "minus_full", "minus_reference", "minus_first": value, low, high,
        p, count and holm of the difference; None if there is no such arm or it is this
        arm. `holm` is p, adjusted by Holm over all differences of this name in the same
        part (over all tasks together).
  """
  values: dict[tuple[Arm, str, str | None], list[float]] = {}
  rows: dict[Arm, list[int]] = {}
  for line in lines:
    arm = Arm(line["strategy"], line["budget"])
    rows.setdefault(arm, []).append(line["rows"])
    for part in (MACRO, OVERALL):
      values.setdefault((arm, part, None), []).append(line[part])
    for name in tasks:
      values.setdefault((arm, "task", name), []).append(line["tasks"][name])
  table = []
  for (arm, part, task), scores in values.items():
    full = values.get((POOL, part, task))
    entry = {
      **arm._asdict(),
      "part": part,
      "task": task,
      "rows": float(np.mean(rows[arm])),
      "seeds": len(scores),
      "mean": intervals.mean_interval(scores)._asdict(),
      "of_full": None,
    }
    if full and all(full):
      shares = [a / b for a, b in zip(scores, full, strict=True)]
      entry["of_full"] = intervals.mean_interval(shares)._asdict()
    for name, find_control in DIFFERENCES.items():
      control = find_control(arm, first)
      entry[name] = None
      if control != arm and (control, part, task) in values:
        control_scores = values[control, part, task]
        entry[name] = intervals.paired_test(scores, control_scores)._asdict()
    table.append(entry)
  adjust(table)
  return table


def adjust(table: list[dict[str, Any]]) -> None:
  """Adds `holm` to every difference of a table, in place; see `tabulate`."""
  families: dict[tuple, list[dict[str, Any]]] = {}
  for entry in table:
    for name in DIFFERENCES:
      if entry[name]:
        families.setdefault((name, entry["part"]), []).append(entry[name])
  for family in families.values():
    adjusted = intervals.holm([test["p"] for test in family])
    for test, p in zip(family, adjusted, strict=True):
      test["holm"] = p


def is_sure(test: dict[str, Any]) -> bool:
  """Returns whether a difference is significant; the rule for stars in all tables."""
  return test["holm"] is not None and test["holm"] < LEVEL


def jaccard(first: Int[np.ndarray, " K"], second: Int[np.ndarray, " M"]) -> float:
  """Returns the Jaccard index of two selections; 1 if both are empty."""
  both = len(np.intersect1d(first, second))
  either = len(first) + len(second) - both
  return both / either if either else 1.0


def overlap(
  kept: dict[tuple[Arm, int], Int[np.ndarray, " K"]], plan: Plan
) -> Iterator[dict[str, Any]]:
  """Yields the mean Jaccard index over seeds of each two strategies at a budget."""
  for first, second in itertools.combinations(plan.arms, 2):
    if first.budget != second.budget or FULL in (first.strategy, second.strategy):
      continue
    indices = [jaccard(kept[first, seed], kept[second, seed]) for seed in plan.seeds]
    yield {
      "budget": first.budget,
      "first": first.strategy,
      "second": second.strategy,
      "jaccard": intervals.mean_interval(indices)._asdict(),
    }


def make_table(results: dict[str, Any]) -> Any:
  """Converts the table to a flat pyarrow table, as it is written to Parquet."""
  import pyarrow as pa

  bounds = ("value", "low", "high")
  tests = (*bounds, "p", "holm")
  parts = {"mean": bounds, "of_full": bounds} | dict.fromkeys(DIFFERENCES, tests)
  columns: dict[str, Any] = {
    name: pa.array([entry[name] for entry in results["table"]], kind)
    for name, kind in (
      ("strategy", pa.string()),
      ("budget", pa.string()),
      ("part", pa.string()),
      ("task", pa.string()),
      ("rows", pa.float64()),
      ("seeds", pa.int64()),
    )
  }
  for part, names in parts.items():
    for name in names:
      values = [(entry[part] or {}).get(name) for entry in results["table"]]
      title = part if name == "value" else f"{part}_{name}"
      columns[title] = pa.array(values, pa.float64())
  return pa.table(columns)
