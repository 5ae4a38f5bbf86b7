"""What the arms show: means over seeds, paired differences, overlaps."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.comparison.comparison_plan import FULL, POOL, RANDOM, Arm, Plan
from mllm_selector_jax.evaluation import intervals
from mllm_selector_jax.pipeline.tune_arm import kept_rows
from mllm_selector_jax.runs.context import Run

MACRO, OVERALL = "macro", "overall"
LEVEL = 0.05  # that an adjusted p-value must be below for a star
# A difference's name and the arm that it is from, at an arm's budget, where "first" is
# the strategy that the others are held against.
DIFFERENCES = {
  "minus_random": lambda arm, first: Arm(RANDOM, arm.budget),
  "minus_full": lambda arm, first: POOL,
  "minus_first": lambda arm, first: Arm(first, arm.budget),
}


def find_first(strategies: Sequence[str]) -> str:
  """The first that is no control; the others are held against it."""
  return next(name for name in (*strategies, "") if name not in (RANDOM, FULL))


def summarise(run: Run, plan: Plan) -> dict[str, Any]:
  """Reads every arm of the plan's seeds.

  Returns:
    What results.json holds: "plan"; "arms", one entry an arm and seed with its
    rows, steps and scores; "tasks_left_out", those that not every arm has;
    "table" (see `tabulate`); "overlap" (see `overlap`).
  """
  lines, kept = [], {}
  for seed, arm in itertools.product(plan.seeds, plan.arms):
    name = arm.name(seed)
    kept[arm, seed] = kept_rows(run, name)
    tuned = run.workdir.tuned(name).path / "metrics.jsonl"
    found = json.loads((run.workdir.evaluation(name).path / "results.json").read_text())
    lines.append(
      {
        "arm": name,
        **arm._asdict(),
        "seed": seed,
        "rows": len(kept[arm, seed]),
        "steps": len(tuned.read_text().splitlines()),
        MACRO: found[MACRO]["value"],
        OVERALL: found[OVERALL]["value"],
        "tasks": {task: part["value"] for task, part in found["tasks"].items()},
      }
    )
  strategies = list(dict.fromkeys(arm.strategy for arm in plan.arms))
  every = [set(line["tasks"]) for line in lines]
  shared = set.intersection(*every)
  return {
    "plan": {
      "seeds": plan.seeds,
      "strategies": strategies,
      "first": find_first(strategies),
      "budgets": list(dict.fromkeys(a.budget for a in plan.arms if a.strategy != FULL)),
      "match": plan.match,
      "fresh_pools": plan.fresh_pools,
      "variants": plan.variants,
    },
    "arms": lines,
    "tasks_left_out": sorted(set.union(*every) - shared),
    "table": tabulate(lines, sorted(shared), find_first(strategies)),
    "overlap": list(overlap(kept, plan)),
  }


def tabulate(
  lines: Sequence[dict[str, Any]], tasks: Sequence[str], first: str = ""
) -> list[dict[str, Any]]:
  """Means over seeds and paired differences, a line an arm and part of the result.

  Args:
    lines: an entry an arm and seed, as `summarise` makes them, the same seeds in
      the same order for every arm.
    tasks: the tasks that all of them have.
    first: the strategy that the others are held against.

  Returns:
    Entries with "strategy", "budget", "part" (macro, overall or task), "task",
    "rows" (mean), "seeds", "mean" (value, low, high), "of_full" (the same, of
    the quotients; None where the full pool has 0 or is no arm), "minus_random",
    "minus_full" and "minus_first" (value, low, high, p, count, holm; None where that is
    no arm or the arm itself). `holm` is p adjusted by Holm over all differences of
    that name in macro, in overall, or in all tasks: one an arm, by task one an arm
    and task.
  """
  values: dict[tuple[Arm, str, str | None], list[float]] = {}
  rows: dict[Arm, list[int]] = {}
  for line in lines:
    arm = Arm(line["strategy"], line["budget"])
    rows.setdefault(arm, []).append(line["rows"])
    for part in (MACRO, OVERALL):
      values.setdefault((arm, part, None), []).append(line[part])
    for task in tasks:
      values.setdefault((arm, "task", task), []).append(line["tasks"][task])
  table = []
  for (arm, part, task), own in values.items():
    full = values.get((POOL, part, task))
    entry = {
      **arm._asdict(),
      "part": part,
      "task": task,
      "rows": float(np.mean(rows[arm])),
      "seeds": len(own),
      "mean": intervals.mean_interval(own)._asdict(),
      "of_full": None,
    }
    if full and all(full):
      shares = [a / b for a, b in zip(own, full, strict=True)]
      entry["of_full"] = intervals.mean_interval(shares)._asdict()
    for name, other_than in DIFFERENCES.items():
      control = other_than(arm, first)
      entry[name] = None
      if control != arm and (control, part, task) in values:
        other = values[control, part, task]
        entry[name] = intervals.paired_test(own, other)._asdict()
    table.append(entry)
  adjust(table)
  return table


def adjust(table: list[dict[str, Any]]) -> None:
  """Gives every difference of a table its `holm`; see `tabulate`."""
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
  """Whether a difference is told from 0: the only rule for a star, in every table."""
  return test["holm"] is not None and test["holm"] < LEVEL


def jaccard(first: Int[np.ndarray, " K"], second: Int[np.ndarray, " M"]) -> float:
  """Rows in both over rows in either; 1 of two empty selections."""
  both = len(np.intersect1d(first, second))
  either = len(first) + len(second) - both
  return both / either if either else 1.0


def overlap(
  kept: dict[tuple[Arm, int], Int[np.ndarray, " K"]], plan: Plan
) -> Iterator[dict[str, Any]]:
  """Jaccard index of each two strategies at a budget, of the same seeds."""
  for one, other in itertools.combinations(plan.arms, 2):
    if one.budget != other.budget or FULL in (one.strategy, other.strategy):
      continue
    found = [jaccard(kept[one, seed], kept[other, seed]) for seed in plan.seeds]
    yield {
      "budget": one.budget,
      "first": one.strategy,
      "second": other.strategy,
      "jaccard": intervals.mean_interval(found)._asdict(),
    }


def make_table(results: dict[str, Any]) -> Any:
  """The table as Parquet has it: a pyarrow table, nested entries made flat."""
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
      found = [(entry[part] or {}).get(name) for entry in results["table"]]
      title = part if name == "value" else f"{part}_{name}"
      columns[title] = pa.array(found, pa.float64())
  return pa.table(columns)
