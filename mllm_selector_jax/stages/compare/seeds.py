"""The config and the folders of one seed of a comparison."""

import contextlib
import copy
from collections.abc import Iterator

from mllm_selector_jax.stages.compare.arms import Plan
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.stages.workdir import Workdir


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
