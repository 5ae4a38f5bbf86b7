"""Measures how diverse sets of rows are, compared with random rows and the pool."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from mllm_selector_jax.inputs.alike import Watch
from mllm_selector_jax.inputs.lists import read_references
from mllm_selector_jax.inputs.references import find_rows
from mllm_selector_jax.pipeline import candidates
from mllm_selector_jax.pipeline.listed_rows import name_rows
from mllm_selector_jax.pipeline.measure_lines import POOL, RANDOM
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection import draws, measures
from mllm_selector_jax.selection.kl import find_target
from mllm_selector_jax.selection.strategies import OBJECTIVE
from mllm_selector_jax.types import InputError

DISTANCES = ("coverage_radius", "mean_distance", "duplicates")


class Listed(NamedTuple):
  """The rows that a file names.

  Attributes:
    kept: A mask over the eligible rows.
    about: The number of "entries" in the file, how many of them repeat a row
      ("repeated"), how many rows have no score ("unscored"), and "notes" on how the
      rows were found.
  """

  kept: Bool[np.ndarray, " N"]
  about: dict[str, Any]


def measure_files(run: Run, files: tuple[str, ...]) -> dict[str, Any]:
  """Measure the rows of each file, with the groups and the target of the config.

  Returns:
    The result of `measure_sets`; the entries of files also have `Listed.about`.

  Raises:
    InputError: A file is missing, more than `select.most_missing` of its entries match
      no row of the pool, or none of the rows has a score.
  """
  config = candidates.make_config(run, strategy=OBJECTIVE)
  seed = run.cfg.rng_seed
  # In a comparison's workdir each seed has a pool and scores; take those of this seed.
  workdirs = [
    p for p in run.workdir.list_scored() if p.scored in (None, _at(run, seed))
  ]
  scored_run = run.at(workdirs[0]) if workdirs else run
  config, _ = name_rows(scored_run, config)
  eligible = candidates.read_eligible(scored_run, config, seed, embeddings=True)
  allowed = run.cfg.select.most_missing
  listed = {name: read_listed(eligible, name, run.progress, allowed) for name in files}
  result = measure_sets(
    run, eligible, {name: rows.kept for name, rows in listed.items()}, seed
  )
  for line in result["sets"]:
    if line["name"] in listed:
      line |= listed[line["name"]].about
  return result


def _at(run: Run, seed: int) -> Path:
  scored = run.workdir.at_seed(seed, False).scored
  assert scored is not None
  return scored


def measure_main(run: Run) -> None:
  """Make `measures/` for `arms/main`, unless it was selected from older scores."""
  chosen, workdir = run.workdir.selection("main"), run.workdir
  provenance, scores = chosen.provenance(), workdir.scores.provenance()
  pool = workdir.pool.provenance()
  if not (provenance and scores and pool):
    return
  inputs = {"scores": scores["digest"], "pool": pool["digest"]}
  if not inputs.items() <= provenance["inputs"].items():
    return
  inputs["selection"] = provenance["digest"]
  settings = {"most_pairs": measures.MOST_PAIRS, "near": measures.NEAR}
  recipe = artifacts.Recipe("report", settings, inputs, provenance["seed"])

  def build(folder):
    import pyarrow.parquet as pq

    config = {**provenance["config"], "strategy": OBJECTIVE}
    path = chosen.path / "selection.parquet"
    kept = pq.read_table(path, columns=["kept"])["kept"].to_numpy()
    name = provenance["config"]["strategy"]
    try:
      eligible = candidates.read_eligible(
        run, config, provenance["seed"], embeddings=True
      )
      sets = {f"main ({name})": kept[eligible.rows]}
      result = measure_sets(run, eligible, sets, provenance["seed"])
    except (
      InputError
    ) as error:  # the target may be invalid, since not every strategy reads it
      result = {"sets": [], "why": str(error)}
    artifacts.write_json(folder / "measures.json", result)

  run.make(workdir.measures, recipe, build)


def read_listed(
  eligible: candidates.Eligible, name: str, watch: Watch, most_missing: float = 0.0
) -> Listed:
  """Find the eligible rows that a file names.

  Args:
    eligible: The eligible rows.
    name: The file.
    watch: Shows the progress if records of the pool have to be read.
    most_missing: The share of the entries that may match no row of the pool.

  Raises:
    InputError: The file is missing or empty, more entries match no row of the pool, or
      none of the rows has a score.
  """
  option = f"--ids={name}"
  if not Path(name).is_file():
    raise InputError(f"{option}: there is no such file.")
  entries = read_references(name, "--ids")
  if not entries:
    raise InputError(f"{option}: the file names no id.")
  match = find_rows(eligible.pool, entries, option, watch, most_missing)
  kept = np.isin(eligible.rows, match.rows)
  if not kept.any():
    raise InputError(
      f"{option}: none of its {len(match.rows):,} rows has a score; pool.parquet says"
      " why they were set aside."
    )
  about = {
    "entries": match.entries,
    "repeated": match.repeated,
    "unscored": len(match.rows) - int(kept.sum()),
    "notes": list(match.notes),
  }
  return Listed(kept, about)


def measure_sets(
  run: Run,
  eligible: candidates.Eligible,
  sets: dict[str, Bool[np.ndarray, " N"]],
  rng: int,
) -> dict[str, Any]:
  """Measure sets of rows, random sets of the same sizes, and the whole pool.

  Args:
    run: The invocation, which shows the progress.
    eligible: The scored rows of the pool, with embeddings if there are any.
    sets: Masks over the eligible rows, by name.
    rng: Seed of the random sets and of the samples that are compared.

  Returns:
    A dict that JSON can hold: "sets" has the figures of each set, and the other
    entries say how they were measured.
  """
  scores, options = eligible.scores, eligible.options
  target = find_target(scores, eligible.groups, rng, options)
  vectors, missing = None, "the scores hold no embeddings"
  if scores.embeddings is not None:
    try:
      vectors, missing = scores.unit_embeddings("measure"), ""
    except InputError as error:
      missing = str(error)
  cosine = options.duplicates
  if vectors is not None:
    cosine = cosine or measures.find_near_cosine(vectors)
  sets = dict(sets)
  order = np.argsort(draws.draw(rng, scores.key, "random"), kind="stable")
  for count in sorted({int(kept.sum()) for kept in sets.values()}):
    drawn = np.zeros(len(order), bool)
    drawn[order[:count]] = True
    sets[f"{RANDOM}, {count:,} rows"] = drawn
  sets[POOL] = np.ones(len(order), bool)

  def watch(title):
    return run.progress(f"{name}: {title}", "pair")

  lines = []
  for name, kept in sets.items():
    figures = measures.measure(
      kept, eligible.groups, target, scores.key, vectors, cosine, rng, watch
    )
    lines.append({"name": name, **figures._asdict()})
  return {
    "sets": lines,
    "pool_rows": len(order),
    "groups": options.groups,
    "group_count": int((np.bincount(eligible.groups.index) > 0).sum()),
    "target": options.target,
    "duplicate_cosine": cosine,
    "fitted": not options.duplicates,
    "seed": rng,
    "missing": dict.fromkeys(DISTANCES, missing) if missing else {},
  }
