"""Checks settings against each other, and against files and artifacts that exist."""

import contextlib
from collections.abc import Callable, Collection

from mllm_selector_jax import listing, mesh_shape
from mllm_selector_jax.comparison.comparison_plan import REFERENCE, read_plan
from mllm_selector_jax.inputs import questions
from mllm_selector_jax.inputs.drawn_demo import is_drawn, make_options
from mllm_selector_jax.pipeline import candidates, trackers
from mllm_selector_jax.pipeline.scored_models import check_folders, check_reference
from mllm_selector_jax.pipeline.search import development_files, search_space
from mllm_selector_jax.pipeline.tuning_recipe import check_section
from mllm_selector_jax.planning.described_pool import check_figures
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import score_table
from mllm_selector_jax.settings.keys import check_keys
from mllm_selector_jax.types import InputError

RECIPES = ("align", "seed", "tune")
WHOLE = ("run", "compare")  # commands that run all stages
# Commands for which the files that settings name must exist.
SCORERS = (*WHOLE, "seed", "score")
MAKERS = (*SCORERS, "select")
ASKERS = (*WHOLE, "evaluate")
TRACKED = (*MAKERS, "align", "tune", "evaluate")  # what trackers show


def check_settings(run: Run, command: str) -> None:
  """Check all settings before the command does anything.

  This refuses what a later stage would refuse. It reads no model and uses no device.

  Args:
    run: The invocation.
    command: Name of the command.

  Raises:
    InputError: A setting is invalid; the message says which, and what is allowed.
  """
  check_keys(run.cfg)
  for check in RELATIONS:
    check(run, command)


def _check_pool(run: Run, command: str) -> None:
  cfg = run.cfg.pool
  if not is_drawn(run.cfg):
    return
  if cfg.images:
    raise InputError(
      f"pool.images={cfg.images!r} is given and pool.data is not: the demo pool of"
      f" pool.demo.rows={cfg.demo.rows:,} is drawn, with images of its own. Give"
      " pool.data too, or leave pool.images out."
    )
  try:
    make_options(cfg.demo)
  except InputError as error:
    raise InputError(f"pool.demo.rows={cfg.demo.rows:,}: {error}") from error


def _check_mesh(run: Run, command: str) -> None:
  mesh_shape.check_shape(**run.cfg.mesh)


def _check_recipes(run: Run, command: str) -> None:
  for name in RECIPES:
    check_section(run.cfg[name], name)


def _check_scores(run: Run, command: str) -> None:
  check_reference(run.cfg)
  if command in SCORERS:
    check_folders(run.cfg)


def _check_selection(run: Run, command: str) -> None:
  columns = list_columns(run, command)
  if columns is not None:
    candidates.check_names(run, columns)
    search_space.check_alternatives(run.cfg, columns)
    search_space.check_search(run, columns)
  if command not in MAKERS:
    return
  candidates.make_config(run)  # reads the files that the section names
  if budgets := listing.split_names(run.cfg.select.sweep.budgets):
    candidates.make_config(run, budgets=budgets)
  if run.cfg.select.search.candidates:
    development_files.check_files(run)
  if command == "select" and run.workdir.pool.provenance():
    candidates.check_pool(run)  # other commands do this after they have made the pool


def list_columns(run: Run, command: str) -> Collection[str] | None:
  """Return the score-table columns that the settings of the selection may name.

  Returns:
    The names of the columns; None if the config names a table that does not exist and
    that the command does not read.
  """
  columns: set[str] = set()
  if command not in WHOLE and run.workdir.scores.provenance():
    with contextlib.suppress(InputError):  # a damaged table will be made again
      columns = set(score_table.list_columns(run.workdir.scores.path))
  if columns and command == "select":
    return columns
  try:
    return columns | set(candidates.predict_columns(run.cfg))
  except InputError:
    if command in SCORERS:
      raise
    return columns or None


def _check_comparison(run: Run, command: str) -> None:
  plan = read_plan(run.cfg)
  if command == "compare":
    for file in plan.published.values():  # reads the files
      given = {"reference": file, "strategy": REFERENCE, "budget": "100%ref"}
      candidates.make_config(run, **given)


def _check_evaluation(run: Run, command: str) -> None:
  if command in ASKERS and not questions.asks_drawn(run):
    questions.check_files(run)


def _check_log(run: Run, command: str) -> None:
  if command in TRACKED:
    trackers.check_packages(run.cfg.log.trackers)


def _check_plan(run: Run, command: str) -> None:
  check_figures(run.cfg.plan)


RELATIONS: tuple[Callable[[Run, str], None], ...] = (
  _check_pool,
  _check_mesh,
  _check_recipes,
  _check_scores,
  _check_selection,
  _check_comparison,
  _check_evaluation,
  _check_log,
  _check_plan,
)
