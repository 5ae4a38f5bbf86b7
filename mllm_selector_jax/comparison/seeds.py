"""The config and the folders of one seed of a comparison, or of one arm."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from mllm_selector_jax.comparison.comparison_plan import Plan
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.types import InputError


@contextlib.contextmanager
def at_seed(run: Run, plan: Plan, seed: int) -> Iterator[None]:
  """Lets the run stand for one seed: its config and its folders."""
  before, cfg = run.cfg, copy.deepcopy(run.cfg)
  cfg.rng_seed = seed
  if plan.fresh_pools:
    cfg.pool.demo.seed = seed
  with in_workdir(run, run.workdir.at_seed(seed, plan.fresh_pools)):
    run.cfg = cfg
    try:
      yield
    finally:
      run.cfg = before


@contextlib.contextmanager
def in_workdir(run: Run, workdir: Workdir) -> Iterator[None]:
  """Lets the run read and write elsewhere."""
  before, run.workdir = run.workdir, workdir
  try:
    yield
  finally:
    run.workdir = before


@contextlib.contextmanager
def at_arm(run: Run, arm: str) -> Iterator[dict[str, Any]]:
  """Lets the run stand where the pool and the scores of an arm's selection are.

  Yields:
    The selection's provenance.

  Raises:
    InputError: there is no selection, or it was made from others.
  """
  selection = run.workdir.selection(arm)
  selection.digest()  # says what to run where there is none
  made = selection.provenance()
  place = run.workdir.at_scores(made["inputs"])
  if place is None:
    raise InputError(
      f"arms/{arm}/selection was made from other scores or another pool; run"
      " `mllm-selector select` first."
    )
  with in_workdir(run, place):
    yield made
