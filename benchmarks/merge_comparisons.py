"""One table and plot of several comparisons' results.json, of other seeds or arms.

    python -m benchmarks.merge_comparisons docs/headline/12-*.json [--plot=PNG]
      [--strategies=kl,top] [--budgets=5%,20%] [--first=kl] [--without_full]
      [--by_budget]

The strategies are held against random, the full pool, the reference if the files have
one, and the first one. An arm that several files have for one seed counts once, the
first file's. Seeds that lack an arm are left out of all, and named; with --by_budget,
out of the budgets at which they lack one. Nothing is then held against the full pool,
which has seeds of its own, while the reference is one of the arms of each budget.
"""

import argparse
import json
from pathlib import Path

from mllm_selector_jax.comparison import against_reference, comparison_summary
from mllm_selector_jax.comparison.comparison_plan import FULL, REFERENCE
from mllm_selector_jax.pages import comparison_page, comparison_plot

BASELINES = (FULL, REFERENCE)  # they are the same at every budget


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("files", nargs="+")
  parser.add_argument("--strategies", help="all of them by default")
  parser.add_argument("--budgets", help="all of them by default")
  parser.add_argument("--first", help="what the others are held against")
  parser.add_argument("--without_full", action="store_true", help="leave it out")
  parser.add_argument("--by_budget", action="store_true", help="seeds of each budget")
  parser.add_argument("--plot", help="a PNG to write")
  arguments = parser.parse_args()
  found = [json.loads(Path(name).read_text()) for name in arguments.files]
  strategies, budgets = _split(arguments.strategies), _split(arguments.budgets)
  join = merge_by_budget if arguments.by_budget else merge
  results, missing = join(
    found, strategies, budgets, arguments.first, not arguments.without_full
  )
  for seed, arms in missing.items():
    print(f"seed {seed} is left out: it lacks {', '.join(arms)}\n")
  print(comparison_page.format_markdown(results, {"table": []}))
  if arguments.plot:
    Path(arguments.plot).write_bytes(comparison_plot.draw(results))


def merge(
  found: list[dict],
  strategies: list[str] | None,
  budgets: list[str] | None,
  first: str | None = None,
  full: bool = True,
) -> tuple[dict, dict[int, list[str]]]:
  """Results of the seeds that have every arm, and what the others lack.

  Args:
    found: what results.json files hold.
    strategies: those that are wanted besides the full pool and the reference; None for
      all.
    budgets: likewise.
    first: the strategy that the others are held against; None for the first one.
    full: whether the full pool is one of the arms, where a file has it.

  Returns:
    What results.json holds, without overlaps; the missing arms by seed.
  """
  lines: dict[int, dict[tuple[str, str], dict]] = {}
  for line in (line for results in found for line in results["arms"]):
    arm = line["strategy"], line["budget"]
    wanted = strategies is None or arm[0] in strategies
    wanted &= budgets is None or arm[1] in budgets
    wanted |= arm[0] == REFERENCE
    if full if arm[0] == FULL else wanted:
      lines.setdefault(line["seed"], {}).setdefault(arm, line)
  rows = {arm: line["rows"] for own in lines.values() for arm, line in own.items()}
  # The baselines, if they are there, then by budget, in the files' order.
  places = {name: place - len(BASELINES) for place, name in enumerate(BASELINES)}
  arms = sorted(rows, key=lambda arm: (places.get(arm[0], 0), rows[arm]))
  missing = {
    seed: [" at ".join(arm) for arm in arms if arm not in own]
    for seed, own in sorted(lines.items())
  }
  seeds = [seed for seed, lacks in missing.items() if not lacks]
  if not seeds:
    raise SystemExit("No seed has every arm: " + json.dumps(missing, indent=1))
  kept = [lines[seed][arm] for seed in seeds for arm in arms]
  tasks = set.intersection(*(set(line["tasks"]) for line in kept))
  names = list(dict.fromkeys(arm[0] for arm in arms))
  first = first or comparison_summary.find_first(strategies or names)
  plan = {
    "seeds": seeds,
    "strategies": names,
    "first": first,
    "budgets": list(dict.fromkeys(arm[1] for arm in arms if arm[0] not in BASELINES)),
  }
  table = comparison_summary.tabulate(kept, sorted(tasks), first)
  return _make_results(plan, kept, table), {
    seed: lacks for seed, lacks in missing.items() if lacks
  }


def merge_by_budget(
  found: list[dict],
  strategies: list[str] | None,
  budgets: list[str] | None,
  first: str | None = None,
  full: bool = True,
) -> tuple[dict, dict[int, list[str]]]:
  """The same, each budget over all seeds that have its arms; see `merge`."""
  every = [line for results in found for line in results["arms"]]
  varied = [line for line in every if line["strategy"] not in BASELINES]
  rows = {line["budget"]: line["rows"] for line in varied}
  wanted = [one for one in sorted(rows, key=rows.get) if one in (budgets or rows)]
  parts = [merge(found, strategies, [one], first, full=False) for one in wanted]
  for part, _ in parts:  # the reference was there to be compared with
    for name in ("arms", "table"):
      part[name] = [one for one in part[name] if one["strategy"] != REFERENCE]
  known = {line["strategy"] for line in every}
  if REFERENCE in known or (full and FULL in known):
    parts.insert(0, merge(found, [], [], first, full))
  table = [entry for part, _ in parts for entry in part["table"]]
  comparison_summary.adjust(table)
  plans = [part["plan"] for part, _ in parts]
  names = list(dict.fromkeys(name for plan in plans for name in plan["strategies"]))
  plan = {
    "seeds": sorted({seed for plan in plans for seed in plan["seeds"]}),
    "strategies": names,
    "first": first or comparison_summary.find_first(strategies or names),
    "budgets": wanted,
  }
  missing: dict[int, list[str]] = {}
  for _, lacks in parts:
    for seed, arms in lacks.items():
      missing.setdefault(seed, []).extend(arms)
  arms = [line for part, _ in parts for line in part["arms"]]
  return _make_results(plan, arms, table), missing


def _make_results(plan: dict, arms: list[dict], table: list[dict]) -> dict:
  answers = against_reference.answer(table)
  parts = {"plan": plan, "arms": arms, "table": table, "against_reference": answers}
  return {**parts, "overlap": []}


def _split(text: str | None) -> list[str] | None:
  return text.split(",") if text else None


if __name__ == "__main__":
  main()
