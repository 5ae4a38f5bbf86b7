"""Measures how diverse lists of rows are, beside random rows and the pool itself."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from mllm_selector_jax.inputs.alike import Watch
from mllm_selector_jax.inputs.lists import read_references
from mllm_selector_jax.inputs.references import find_rows
from mllm_selector_jax.pipeline import candidates
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection import draws, measures
from mllm_selector_jax.selection.kl import find_target
from mllm_selector_jax.selection.strategies import OBJECTIVE
from mllm_selector_jax.types import InputError

POOL = "the pool"
DISTANCES = ("coverage_radius", "mean_distance", "duplicates")


class Listed(NamedTuple):
  """Rows that a file names.

  Attributes:
    kept: of the eligible rows.
    about: "entries" of it, how many of them are "repeated", rows that are
      "unscored", and "notes" on how its rows were found.
  """

  kept: Bool[np.ndarray, " N"]
  about: dict[str, Any]


def measure_files(run: Run, files: tuple[str, ...]) -> dict[str, Any]:
  """Measures of each file's rows, with groups and target as the config has them.

  Raises:
    InputError: a file that is none, an entry that is no row's, or no scored row.
  """
  config = candidates.make_config(run, strategy=OBJECTIVE)
  seed = run.cfg.rng_seed
  # In a comparison's workdir the pool and the scores are those of the seed.
  own = [p for p in run.workdir.list_scored() if p.scored in (None, _at(run, seed))]
  place = run.at(own[0]) if own else run
  config, _ = candidates.name_rows(place, config)
  eligible = candidates.read_eligible(place, config, seed, embeddings=True)
  listed = {name: read_listed(eligible, name, run.progress) for name in files}
  found = measure_sets(
    run, eligible, {name: each.kept for name, each in listed.items()}, seed
  )
  for line in found["sets"]:
    if line["name"] in listed:
      line |= listed[line["name"]].about
  return found


def _at(run: Run, seed: int) -> Path:
  return run.workdir.at_seed(seed, False).scored


def measure_main(run: Run) -> None:
  """Makes `measures/`, of `arms/main`, if that is of the scores as they are now."""
  chosen, work = run.workdir.selection("main"), run.workdir
  made, scores = chosen.provenance(), work.scores.provenance()
  pool = work.pool.provenance()
  if not (made and scores and pool):
    return
  inputs = {"scores": scores["digest"], "pool": pool["digest"]}
  if not inputs.items() <= made["inputs"].items():
    return
  inputs["selection"] = made["digest"]
  settings = {"most_pairs": measures.MOST_PAIRS, "duplicate": measures.DUPLICATE}
  recipe = artifacts.Recipe("report", settings, inputs, made["seed"])

  def build(folder):
    import pyarrow.parquet as pq

    config = {**made["config"], "strategy": OBJECTIVE}
    path = chosen.path / "selection.parquet"
    kept = pq.read_table(path, columns=["kept"])["kept"].to_numpy()
    name = made["config"]["strategy"]
    try:
      eligible = candidates.read_eligible(run, config, made["seed"], embeddings=True)
      sets = {f"main ({name})": kept[eligible.rows]}
      found = measure_sets(run, eligible, sets, made["seed"])
    except InputError as error:  # a target that the arm's strategy does not read
      found = {"sets": [], "why": str(error)}
    artifacts.write_json(folder / "measures.json", found)

  run.make(work.measures, recipe, build)


def read_listed(eligible: candidates.Eligible, name: str, watch: Watch) -> Listed:
  """The eligible rows that a file names.

  Raises:
    InputError: no such file, an entry that is no row's, or no scored row.
  """
  option = f"--ids={name}"
  if not Path(name).is_file():
    raise InputError(f"{option}: there is no such file.")
  entries = read_references(name, "--ids")
  if not entries:
    raise InputError(f"{option}: the file names no id.")
  found = find_rows(eligible.pool, entries, option, watch)
  kept = np.isin(eligible.rows, found.rows)
  if not kept.any():
    raise InputError(
      f"{option}: none of its {len(found.rows):,} rows was scored; they were set aside,"
      " see pool.parquet."
    )
  about = {
    "entries": found.entries,
    "repeated": found.repeated,
    "unscored": len(found.rows) - int(kept.sum()),
    "notes": list(found.notes),
  }
  return Listed(kept, about)


def measure_sets(
  run: Run,
  eligible: candidates.Eligible,
  sets: dict[str, Bool[np.ndarray, " N"]],
  rng: int,
) -> dict[str, Any]:
  """Measures of sets of rows, of random rows as many as each has, and of the pool.

  Args:
    run: shows progress.
    eligible: the pool's scored rows, with embeddings where there are any.
    sets: by name, which of them.
    rng: seed of the random rows and of samples.
  """
  scores, options = eligible.scores, eligible.options
  cosine = options.duplicates or measures.DUPLICATE
  target = find_target(scores, eligible.groups, rng, options)
  vectors, missing = None, "the scores hold no embeddings"
  if scores.embeddings is not None:
    try:
      vectors, missing = scores.unit_embeddings("measure"), ""
    except InputError as error:
      missing = str(error)
  sets = dict(sets)
  order = np.argsort(draws.draw(rng, scores.key, "random"), kind="stable")
  for count in sorted({int(kept.sum()) for kept in sets.values()}):
    drawn = np.zeros(len(order), bool)
    drawn[order[:count]] = True
    sets[f"random, {count:,} rows"] = drawn
  sets[POOL] = np.ones(len(order), bool)

  def watch(title):
    return run.progress(f"{name}: {title}", "pair")

  lines = []
  for name, kept in sets.items():
    found = measures.measure(
      kept, eligible.groups, target, scores.key, vectors, cosine, rng, watch
    )
    lines.append({"name": name, **found._asdict()})
  return {
    "sets": lines,
    "pool_rows": len(order),
    "groups": options.groups,
    "group_count": int((np.bincount(eligible.groups.index) > 0).sum()),
    "target": options.target,
    "duplicate_cosine": cosine,
    "seed": rng,
    "missing": dict.fromkeys(DISTANCES, missing) if missing else {},
  }
