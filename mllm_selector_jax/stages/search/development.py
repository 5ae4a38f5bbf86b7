"""What settings are compared on: held-out rows of the pool, or question files."""

import contextlib
import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax import artifacts, peers
from mllm_selector_jax.scoring import passes, table
from mllm_selector_jax.stages import base, evaluate, score
from mllm_selector_jax.stages.clusters import read_keys
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.stages.held_out import OPTION, hold_out, read_files, read_share
from mllm_selector_jax.stages.questions import check_folders, question_files
from mllm_selector_jax.types import InputError


def check_files(run: Run) -> None:
  """Refuses development questions that are not there or that are the test's."""
  test = {
    artifacts.hash_file(Path(name)): name
    for name in question_files(run)
    if Path(name).is_file()
  }
  check_folders(run.cfg.select.search.images, "select.search.images")
  for name in read_files(run.cfg):
    if not Path(name).is_file():
      raise InputError(f"{OPTION}={name}: there is no such file.")
    if same := test.get(artifacts.hash_file(Path(name))):
      raise InputError(
        f"{OPTION}={name} is the same file as {same}, on which the result is measured:"
        " settings chosen there would make it look better than it is. Give other"
        ' questions, or a share of the pool such as "10%".'
      )


def measure_arm(run: Run, arm: str) -> None:
  """Makes one arm's `evaluation/` on the development split."""
  if read_files(run.cfg):
    with _asking_development(run):
      evaluate.evaluate_arm(run, arm)
  else:
    _measure_rows(run, arm)


@contextlib.contextmanager
def _asking_development(run: Run) -> Iterator[None]:
  before, cfg = run.cfg, copy.deepcopy(run.cfg)
  cfg.evaluate.tasks = tuple(read_files(cfg))
  cfg.evaluate.images = cfg.select.search.images
  run.cfg = cfg
  try:
    yield
  finally:
    run.cfg = before


def _measure_rows(run: Run, arm: str) -> None:
  """The share of the answers' tokens that the tuned model gets right, by source."""
  share = read_share(run.cfg)
  recipe = run.recipe(
    "select",
    {"development": share, "model": base.model_config(run)},
    {"tuned": run.workdir.tuned(arm).digest(), "pool": run.workdir.pool.digest()},
  )

  def build(folder):
    pool, options = base.open_pool(run), score.make_options(run.cfg)
    usable = np.flatnonzero(pool.ok)
    key = read_keys(pool, usable)
    rows = usable[hold_out(key, share, run.cfg.rng_seed)]
    if not len(rows):
      raise InputError(
        f"{OPTION} holds out {share:.2%} of {len(usable):,} rows, which is none; raise"
        " it, or give question files."
      )
    work, models = folder / score.WORK, {"seed": run.workdir.tuned(arm).path / "hf"}
    main = [passes.MAIN]
    title = f"develop {arm}"
    counts = score.run_passes(run, work, models, main, rows, options, pool, title)
    if not peers.is_first_process():
      return
    number = {"main": counts["main"]["parts"]}
    signals = ("loss", "accuracy")
    found = table.read_passes({"main": work / "main"}, number, pool, rows[:0], signals)
    results = summarise(
      pool.source[found.row],
      found.columns["accuracy"].to_numpy(),
      found.columns["loss"].to_numpy(),
    )
    artifacts.write_json(folder / "results.json", results)
    shutil.rmtree(work)

  run.make(run.workdir.evaluation(arm), recipe, build, together=True)


def summarise(source: Any, accuracy: np.ndarray, loss: np.ndarray) -> dict[str, Any]:
  """Means by source, and the mean of these; rows of no finite loss count as wrong."""
  names, index = np.unique(np.asarray(source, dtype=str), return_inverse=True)
  order = np.lexsort((loss, accuracy, index))  # the order of rows is no matter
  index, accuracy, loss = index[order], accuracy[order], loss[order]
  sizes = np.bincount(index)
  right = np.bincount(index, np.where(np.isfinite(loss), accuracy, 0.0)) / sizes
  tasks = {
    str(name): {"value": float(value), "count": int(size)}
    for name, value, size in zip(names, right, sizes, strict=True)
  }
  macro = {"value": float(right.mean()), "count": len(loss)}
  return {"macro": macro, "tasks": tasks}
