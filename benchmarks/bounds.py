"""What each rule for suspect rows finds on the drawn demo pool, whose truth is known.

  python benchmarks/bounds.py --workdir=runs/bounds --seeds=0,1

Each seed has its own pool, seed model and score table, and what has been made is
kept, so a run that was stopped goes on. Prints, for every rule alone, how many rows
it takes out, which share of them is rightly taken (precision), which share of all
such rows it takes (recall), and the share of sound rows lost; then what each costs
beside the scoring, by task what the rules of `BY_TASK` find and lose of wrong or
misaligned rows, and how many of their suspects say yes and no; means over the seeds.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mllm_selector_jax.configs import demo
from mllm_selector_jax.data.tokens.dialogue import Round, hash_answers
from mllm_selector_jax.pipeline import candidates, doubts, heldout_models
from mllm_selector_jax.runs import context
from mllm_selector_jax.runs.times import keep_times, read_times
from mllm_selector_jax.selection.bounds import BOUNDS
from mllm_selector_jax.selection.eligibility import sort_out
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.stages import COMMANDS

HELD_OUT = tuple(name for name, bound in BOUNDS.items() if bound.held_out)
NONE = {"bound": 0.0, "competence": None, "visual": False, "duplicates": 0.0}
RULES = {
  "bound 0.05": {"bound": 0.05},
  "bound 0.15": {"bound": 0.15},
  "bound 0.3": {"bound": 0.3},
  "competence 0.5": {"competence": 0.5},
  "competence 0.6": {"competence": 0.6},
  "competence 0.7": {"competence": 0.7},
  **{name: {"bound": name} for name in BOUNDS if name not in ("none", "quantile")},
  "visual": {"visual": True},
  "bound 0.15 + competence 0.6": {"bound": 0.15, "competence": 0.6},
  "duplicates 0.9": {"duplicates": 0.9},
  "duplicates 0.99": {"duplicates": 0.99},
  "duplicates 0.999": {"duplicates": 0.999},
}
BY_TASK = ("bound 0.15", *(name for name in RULES if name in BOUNDS))
SMALLEST = 3  # tasks that are the tail
ANSWERS = ("yes", "no")
KINDS = ("wrong", "misaligned", "wrong or misaligned", "duplicate")


def score_pool(folder: Path, seed: int, rows: int):
  """A drawn pool, scored; resumes what is there.

  Returns:
    Eligible rows, by bound its doubt, and by bound FLOPs and seconds.
  """
  cfg = demo.get_config()
  cfg.rng_seed = cfg.pool.demo.seed = seed
  cfg.pool.demo.rows = rows
  cfg.score.signals = f"{cfg.score.signals},visual"
  cfg.select.visual, cfg.select.competence, cfg.select.duplicates = True, 0.6, 0.9
  with context.open_run(cfg, str(folder)) as run:
    COMMANDS["check"](run)
    COMMANDS["seed"](run)
    COMMANDS["score"](run)
    eligible = candidates.read_eligible(run, candidates.make_config(run), seed)
    found, costs = {}, {}
    for bound in HELD_OUT:
      heldout_models.make_doubts(run, bound)
      keep_times(run, run.workdir.logs)
      found[bound] = doubts.read_doubt(run, bound, eligible.rows)
      seconds = heldout_models.add_seconds(read_times(run.workdir.logs), bound)
      costs[bound] = heldout_models.read_flops(run, bound), seconds
    return eligible, found, costs


def find(eligible, doubt, rule) -> np.ndarray:
  """Which rows a rule takes out."""
  options = dataclasses.replace(SelectOptions(), **{**NONE, **rule})
  scores = dataclasses.replace(eligible.scores, doubt=doubt.get(options.bound))
  return sort_out(scores, eligible.groups, 0, options, True).suspect


def measure_tasks(eligible, truth, found) -> dict[str, tuple[float, ...]]:
  """By task its rows, precision, recall and share of sound rows lost."""
  bad = (truth["wrong"] | truth["misaligned"])[eligible.rows]
  task = truth["task"][eligible.rows]
  names, sizes = np.unique(task, return_counts=True)
  names = names[np.argsort(sizes)]
  parts = {name: task == name for name in names}
  parts[f"the smallest {SMALLEST}"] = np.isin(task, names[:SMALLEST])
  result = {}
  for name, own in parts.items():
    right = (found & bad & own).sum()
    result[name] = (
      own.sum(),
      right / max((found & own).sum(), 1),
      right / max((bad & own).sum(), 1),
      (found & ~bad & own).sum() / max((~bad & own).sum(), 1),
    )
  return result


def count_answers(eligible, found) -> list[int]:
  """How many of the rows found have each of `ANSWERS`."""
  numbers = [hash_answers([Round("", answer)]) for answer in ANSWERS]
  return [int((eligible.scores.answer[found] == number).sum()) for number in numbers]


def measure(eligible, truth, found) -> dict[str, tuple[float, float]]:
  """By kind precision and recall; "taken" and "sound rows lost" as shares."""
  wrong = truth["wrong"][eligible.rows]
  misaligned = truth["misaligned"][eligible.rows]
  kinds = {
    "wrong": wrong,
    "misaligned": misaligned,
    "wrong or misaligned": wrong | misaligned,
  }
  result = {
    kind: ((found & own).sum() / max(found.sum(), 1), (found & own).sum() / own.sum())
    for kind, own in kinds.items()
  }
  result["duplicate"] = pairs_found(found, truth["duplicate_of"], eligible.rows)
  sound = ~(wrong | misaligned)
  result["taken"] = (found.mean(), (found & sound).sum() / sound.sum())
  return result


def pairs_found(found, duplicate_of, rows) -> tuple[float, float]:
  """A row is rightly taken if it has a copy; a pair is found if one of it is."""
  whole = np.zeros(len(duplicate_of), bool)
  whole[rows[found]] = True
  eligible = np.zeros(len(duplicate_of), bool)
  eligible[rows] = True
  copies = np.flatnonzero(duplicate_of >= 0)
  originals = duplicate_of[copies].astype(int)
  both = eligible[copies] & eligible[originals]
  copies, originals = copies[both], originals[both]
  member = np.zeros(len(duplicate_of), bool)
  member[copies] = member[originals] = True
  return (
    float((whole & member).sum() / max(whole.sum(), 1)),
    float((whole[copies] | whole[originals]).mean()),
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", type=Path, required=True)
  parser.add_argument("--seeds", default="0,1")
  parser.add_argument("--rows", type=int, default=6000)
  arguments = parser.parse_args()
  found: dict[str, list] = {rule: [] for rule in RULES}
  tasks: dict[str, list] = {rule: [] for rule in BY_TASK}
  said: dict[str, list] = {rule: [] for rule in BY_TASK}
  spent: dict[str, list] = {bound: [] for bound in HELD_OUT}
  for seed in map(int, arguments.seeds.split(",")):
    folder = arguments.workdir / f"seed-{seed}"
    eligible, doubt, costs = score_pool(folder, seed, arguments.rows)
    table = pq.read_table(folder / "demo_pool" / "truth.parquet")
    truth = {
      "wrong": table["wrong"].to_numpy(),
      "misaligned": table["misaligned"].to_numpy(),
      "task": np.array(table["task"].to_pylist()),
      "duplicate_of": table["duplicate_of"].fill_null(-1).to_numpy(),
    }
    for rule, options in RULES.items():
      taken = find(eligible, doubt, options)
      found[rule].append(measure(eligible, truth, taken))
      if rule in BY_TASK:
        tasks[rule].append(measure_tasks(eligible, truth, taken))
        said[rule].append(count_answers(eligible, taken))
    for bound, cost in costs.items():
      spent[bound].append(cost)
  heads = "".join(f" {kind}: precision | recall |" for kind in KINDS)
  print(f"| rule | rows taken | sound rows lost |{heads}")
  print("|---" * (3 + 2 * len(KINDS)) + "|")
  for rule, each in found.items():
    means = {
      kind: np.mean([one[kind] for one in each], axis=0) for kind in (*KINDS, "taken")
    }
    cells = "".join(f" {means[kind][0]:.2f} | {means[kind][1]:.2f} |" for kind in KINDS)
    taken = means["taken"]
    print(f"| {rule} | {taken[0]:.3f} | {taken[1]:.3f} |{cells}")
  print("\n| bound | FLOPs beside the scoring | seconds |\n|---|---|---|")
  for bound, each in spent.items():
    flops, seconds = np.mean(each, axis=0)
    print(f"| {bound} | {flops:.2e} | {seconds:.0f} |")
  heads = "".join(f" {rule}: precision | recall | lost |" for rule in BY_TASK)
  print(f"\n| task | rows |{heads}")
  print("|---" * (2 + 3 * len(BY_TASK)) + "|")
  for name in tasks[BY_TASK[0]][0]:
    means = {
      rule: np.mean([one[name] for one in each if name in one], axis=0)
      for rule, each in tasks.items()
    }
    cells = "".join(f" {p:.2f} | {r:.2f} | {s:.2f} |" for _, p, r, s in means.values())
    print(f"| {name} | {means[BY_TASK[0]][0]:.0f} |{cells}")
  print(f"\n| suspects that say |{''.join(f' {rule} |' for rule in BY_TASK)}")
  print("|---" * (1 + len(BY_TASK)) + "|")
  for place, answer in enumerate(ANSWERS):
    means = [np.mean(each, axis=0)[place] for each in said.values()]
    print(f"| {answer} |{''.join(f' {mean:.0f} |' for mean in means)}")


if __name__ == "__main__":
  main()
