"""How good suspects, doubts and the report's first cards are on drawn pools.

  python -m benchmarks.doubts --workdir=runs/doubts --seeds=11,12
  python -m benchmarks.doubts --workdir=runs/real --seeds=51 --base=DIR --rows=1500

Each seed has its own pool, seed model and score table; what has been made is kept, so a
run that was stopped goes on. A row is bad if its answer is wrong or its image another
one's. Groups are known, or below the gate of the bound `mixture`. Prints for each the
precision and recall of suspects and of doubtful rows (each rule alone), the share of
sound rows that are left out by task, and how many of the first cards are bad.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mllm_selector_jax.configs import demo
from mllm_selector_jax.pages import findings, gather, picks
from mllm_selector_jax.pipeline import candidates, doubtful_rows
from mllm_selector_jax.runs import context
from mllm_selector_jax.scoring.score_table import read_scores
from mllm_selector_jax.selection import second_look, skill
from mllm_selector_jax.stages import COMMANDS

CARDS = 8  # of a kind, shown before the rest is unfolded
OPPOSITION = (1.0, 1.05, 1.1)


def make_config(seed: int, rows: int, base: str | None):
  cfg = demo.get_config()
  cfg.rng_seed = cfg.pool.demo.seed = seed
  cfg.pool.demo.rows = rows
  if base:
    cfg.model.path = base
  return cfg


def measure_pool(folder: Path, cfg) -> dict[tuple[str, str], np.ndarray]:
  """Scores a pool and counts rows.

  Returns:
    For each kind of groups and rule the number of rows that the rule finds, of bad
    ones among them, and of bad rows there are; for ("lost", task) the sound rows that
    are suspect, 0, and all sound rows; for ("cards", ...) the bad cards and cards.
  """
  with context.open_run(cfg, str(folder)) as run:
    for stage in ("check", "seed", "score", "select"):
      COMMANDS[stage](run)
    config = candidates.make_config(run)
    eligible = candidates.read_eligible(run, config, cfg.rng_seed)
    table = read_scores(run.workdir.scores.path)
  truth = pq.read_table(folder / "demo_pool" / "truth.parquet")
  bad = truth["wrong"].to_numpy() | truth["misaligned"].to_numpy()
  task = np.array(truth["task"].to_pylist())[eligible.rows]
  counts = count_cards(folder, bad)
  bad = bad[eligible.rows]
  chosen = eligible.select("100%", cfg.rng_seed)
  suspect = np.array([text == "kept to fill the budget" for text in chosen.reason])
  standing = doubtful_rows.judge_rows(eligible, chosen, table)
  rules = {"suspect": suspect, **list_doubts(standing.doubt, suspect)}
  rules |= list_opposed(eligible, table, suspect)
  for name, where in find_kinds(eligible, standing.judged | suspect).items():
    for rule, found in rules.items():
      hit = (found & bad & where).sum()
      counts[name, rule] = np.array([(found & where).sum(), hit, (bad & where).sum()])
  for name in np.unique(task):
    sound = ~bad & (task == name)
    counts["lost", str(name)] = np.array([(suspect & sound).sum(), 0, sound.sum()])
  return counts


def find_kinds(eligible, judged) -> dict[str, np.ndarray]:
  """Which rows are in groups that the seed model knows: that have a judged row."""
  known = np.isin(eligible.groups.index, eligible.groups.index[judged])
  return {"all": np.ones(len(known), bool), "known": known, "below the gate": ~known}


def list_doubts(doubt, suspect) -> dict[str, np.ndarray]:
  kinds = np.array([doubtful_rows.name_kind(text) if text else "" for text in doubt])
  rules = {"doubtful": (kinds != "") & ~suspect}
  return rules | {
    f"  {kind}": (kinds == kind) & ~suspect for kind in np.unique(kinds) if kind
  }


def list_opposed(eligible, table, suspect) -> dict[str, np.ndarray]:
  """Rows that would be suspect too if the model's being sure were enough."""
  lines = np.searchsorted(table.row, eligible.rows)
  right = table.columns["accuracy"][lines] >= 1
  opposition = second_look.measure_opposition(
    table.columns["el2n"][lines],
    table.columns["supervised"][lines],
    eligible.pool.turns[eligible.rows],
  )
  every = np.ones(len(right), bool)
  gives = skill.judge(right, eligible.groups.index, eligible.scores.answer, every).gives
  return {
    f"sure above {least:g}": (opposition > least) & gives & ~right & ~suspect
    for least in OPPOSITION
  }


def count_cards(folder: Path, bad) -> dict[tuple[str, str], np.ndarray]:
  run = gather.read_run(folder)
  selection = run.main.selection
  shown = picks.pick_rows(run.pool, selection)
  ranked = np.flatnonzero(selection.kept)
  ranked = ranked[np.argsort(selection.rank[ranked], kind="stable")]
  firsts = {pick.name: pick.rows for pick in shown if pick.name.startswith("Kept")}
  firsts["Kept, by rank"] = ranked
  counts = {
    ("cards", name): np.array([bad[rows[:CARDS]].sum(), 0, len(rows[:CARDS])])
    for name, rows in firsts.items()
  }
  doubtful = findings.is_doubtful(selection)
  for name, rows in (("doubtful", doubtful), ("confirmed", selection.confirmed)):
    rows = rows & selection.kept
    counts["cards", f"all kept rows that are {name}"] = np.array(
      [bad[rows].sum(), 0, rows.sum()]
    )
  return counts


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seeds", default="11,12")
  parser.add_argument("--rows", type=int, default=6000)
  parser.add_argument("--base")
  arguments = parser.parse_args()
  total: dict[tuple[str, str], np.ndarray] = {}
  for seed in map(int, arguments.seeds.split(",")):
    cfg = make_config(seed, arguments.rows, arguments.base)
    for key, each in measure_pool(arguments.workdir / f"seed-{seed}", cfg).items():
      total[key] = total.get(key, 0) + each
  print("| groups | rows | number | precision | recall |\n|---|---|---|---|---|")
  for (kind, rule), (found, hit, there) in total.items():
    if kind not in ("lost", "cards"):
      precision, recall = hit / max(found, 1), hit / max(there, 1)
      print(f"| {kind} | {rule} | {found} | {precision:.2f} | {recall:.2f} |")
  print("\n| task | sound rows | of them suspect |\n|---|---|---|")
  for (kind, task), (lost, _, there) in total.items():
    if kind == "lost":
      print(f"| {task} | {there} | {lost / max(there, 1):.3f} |")
  print(f"\n| cards, the first {CARDS} | bad | of |\n|---|---|---|")
  for (kind, name), (wrong, _, there) in total.items():
    if kind == "cards":
      print(f"| {name} | {wrong} | {there} |")


if __name__ == "__main__":
  main()
