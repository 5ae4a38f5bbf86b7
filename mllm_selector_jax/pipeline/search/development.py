"""Measures trials of a search, on held-out rows of the pool or on question files."""

import json
import shutil
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt64

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.held_out import read_files, read_share
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.pipeline import candidates, evaluate_arm, flops, score_pool
from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import passes, score_table
from mllm_selector_jax.selection import draws
from mllm_selector_jax.selection.kl import find_target
from mllm_selector_jax.selection.strategies import OBJECTIVE


class Measure(NamedTuple):
  """What one trial scored on the development split.

  Attributes:
    names: Task and id of each question, or source and number of each row.
    score: The score of each, from 0 to 1.
    weight: The weight of each; they sum to 1.
  """

  names: list[tuple[str, str]]
  score: Float[np.ndarray, " n"]
  weight: Float[np.ndarray, " n"]

  @property
  def value(self) -> float:
    return float(self.weight @ self.score)


class Split(NamedTuple):
  """Held-out rows of a pool, on which trials are measured.

  Attributes:
    rows: Pool row numbers, ascending.
    group: The group of each row.
    shares: The target share of each group.
    tie: A random number for each row, which depends on its content.
  """

  rows: Int[np.ndarray, " n"]
  group: Int[np.ndarray, " n"]
  shares: Float[np.ndarray, " G"]
  tie: UInt64[np.ndarray, " n"]

  def draw(self, count: int) -> "Split":
    """Return that many of the rows, drawn at random; all if there are not so many."""
    drawn = np.sort(np.argsort(self.tie, kind="stable")[:count])
    return self._replace(
      rows=self.rows[drawn], group=self.group[drawn], tie=self.tie[drawn]
    )


def measure_arm(run: Run, arm: str, split: Split) -> None:
  """Make `evaluation/` of one arm, on the rows of a split or on the question files."""
  if read_files(run.cfg):
    evaluate_arm.evaluate_arm(_at_development(run), arm)
  else:
    _measure_rows(run, arm, split.rows)


def read_measure(run: Run, arm: str, split: Split) -> Measure:
  """Read what one arm scored.

  All tasks of question files weigh the same. Groups of held-out rows weigh as much as
  their target shares, which say how much each of them matters.
  """
  import pyarrow.parquet as pq

  folder = run.workdir.evaluation(arm).path
  if read_files(run.cfg):
    text = (folder / "predictions.jsonl").read_text()
    lines = sorted(
      (str(line["task"]), str(line["id"]), float(line["score"]))
      for line in map(json.loads, text.splitlines())
    )
    names = [(task, name) for task, name, _ in lines]
    weight = weigh_groups(
      np.unique([task for task, _ in names], return_inverse=True)[1]
    )
    return Measure(names, np.array([line[2] for line in lines], float), weight)
  table = pq.read_table(folder / "rows.parquet")
  assert table["row"].to_numpy().tolist() == split.rows.tolist()
  rows = table["row"].to_pylist()
  names = list(zip(table["source"].to_pylist(), map(str, rows), strict=True))
  weight = weigh_groups(split.group, split.shares)
  return Measure(names, table["score"].to_numpy(), weight)


def read_split(run: Run) -> Split:
  """Return all held-out rows that have a score; none if question files are used."""
  # Target shares are those of all rows, whatever a bound leaves out.
  settings = {"bound": "none", "competence": 0.0, "visual": False, "duplicates": 0.0}
  config = candidates.make_config(run, strategy=OBJECTIVE, **settings)
  rng = run.cfg.rng_seed
  eligible = candidates.read_eligible(run, config, rng)
  held_out = eligible.scores.flag("held_out")
  shares = find_target(eligible.scores, eligible.groups, rng, eligible.options)
  tie = draws.draw(rng, eligible.scores.key[held_out], "measure")
  return Split(eligible.rows[held_out], eligible.groups.index[held_out], shares, tie)


def weigh_groups(
  group: Int[np.ndarray, " n"], shares: Float[np.ndarray, " G"] | None = None
) -> Float[np.ndarray, " n"]:
  """Return weights by which each group counts as its share; they sum to 1.

  Args:
    group: The group of each row. The shares of groups without rows go to the others.
    shares: The share of each group; None for equal ones.
  """
  sizes = np.bincount(group, minlength=0 if shares is None else len(shares))
  shares = np.ones(len(sizes)) if shares is None else shares
  shares = np.where(sizes > 0, shares, 0.0)
  weight = (shares / np.maximum(sizes, 1))[group]
  if not weight.sum():  # no held-out row is of a group that the target has
    weight = np.ones(len(group))
  return weight / weight.sum()


def _at_development(run: Run) -> Run:
  """Return a run whose evaluation uses the development questions."""
  tasks = tuple(read_files(run.cfg))
  images = run.cfg.select.search.images
  return run.at(settings={"evaluate.tasks": tasks, "evaluate.images": images})


def _measure_rows(run: Run, arm: str, rows: Int[np.ndarray, " n"]) -> None:
  """Measure how probable the tuned model finds the answers of some held-out rows."""
  config = {"development": read_share(run.cfg), "rows": len(rows)}
  recipe = run.recipe(
    "select",
    {**config, "model": base_model.model_config(run)},
    {"tuned": run.workdir.tuned(arm).digest(), "pool": run.workdir.pool.digest()},
  )

  def build(folder):
    import pyarrow as pa

    pool, options = base_model.open_pool(run), score_pool.make_options(run.cfg)
    work = folder / score_pool.WORK
    models = {"seed": run.workdir.tuned(arm).path / "hf"}
    main = [passes.MAIN]
    title = f"develop {arm}"
    counts = score_pool.run_passes(run, work, models, main, rows, options, pool, title)
    if not peers.is_first_process():
      return
    parts = {"main": work / "main"}, {"main": counts["main"]["parts"]}
    scored = score_table.read_passes(*parts, pool, rows[:0], ("loss",))
    order = np.argsort(scored.row)
    loss = scored.columns["loss"].to_numpy()[order]
    score, source = rate_rows(loss), pool.source[scored.row[order]]
    lines = {
      "row": scored.row[order],
      "source": pa.array(source, pa.string()),
      "score": score,
      "loss": loss,
    }
    artifacts.write_table(folder / "rows.parquet", pa.table(lines))
    config = huggingface.read_config(base_model.base_path(run))
    spent = flops.pass_flops(config, pool, rows, counts)
    artifacts.write_json(
      folder / "results.json", {"tasks": summarise(source, score), "flops": spent}
    )
    shutil.rmtree(work)

  run.make(run.workdir.evaluation(arm), recipe, build, together=True)


def rate_rows(loss: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
  """Return the score of each row, from 0 to 1: the probability of its answer.

  It is the geometric mean over the answer's tokens. Unlike the loss it is bounded, so
  that a wrong answer in the pool costs a model that knows better next to nothing.
  Unlike the share of right tokens, it also differs where both models are right or both
  are wrong, so that fewer rows tell two models apart.

  Args:
    loss: The loss of each row, in nats per supervised token; one that is not finite
      counts as a probability of 0.
  """
  return np.where(np.isfinite(loss), np.exp(-np.nan_to_num(loss)), 0.0)


def summarise(
  source: Any, score: Float[np.ndarray, " n"]
) -> dict[str, dict[str, float]]:
  """Return the mean score ("value") and the number ("count") of each source's rows."""
  names, index = np.unique(np.asarray(source, dtype=str), return_inverse=True)
  sizes, sums = np.bincount(index), np.bincount(index, score)
  return {
    str(name): {"value": float(total / size), "count": int(size)}
    for name, total, size in zip(names, sums, sizes, strict=True)
  }
