"""What must hold between settings, and between them and what is there already."""

import contextlib
from collections.abc import Callable, Collection

from mllm_selector_jax import mesh_shape
from mllm_selector_jax.comparison.comparison_plan import read_plan
from mllm_selector_jax.inputs import questions
from mllm_selector_jax.inputs.drawn_demo import is_drawn, make_options
from mllm_selector_jax.pipeline import candidates
from mllm_selector_jax.pipeline.board import import_board
from mllm_selector_jax.pipeline.scored_models import check_folders, check_reference
from mllm_selector_jax.pipeline.search import development_files, search_space
from mllm_selector_jax.pipeline.tuning_recipe import check_section
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import score_table
from mllm_selector_jax.settings.keys import check_keys
from mllm_selector_jax.types import InputError

RECIPES = ("align", "seed", "tune")
WHOLE = ("run", "compare")  # commands that make all stages, the pool and scores too
# Those for which what settings name as files must be there.
SCORERS = (*WHOLE, "seed", "score")
MAKERS = (*SCORERS, "select")
ASKERS = (*WHOLE, "evaluate")


def check_settings(run: Run, command: str) -> None:
  """Refuses settings that some stage would refuse, before the command does anything.

  No model is read, and no device is asked for.

  Args:
    run: the invocation.
    command: that is to be carried out.

  Raises:
    InputError: what is wrong, by its key, and what is allowed.
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
  there = list_columns(run, command)
  if there is not None:
    candidates.check_names(run, there)
    search_space.check_alternatives(run.cfg, there)
    search_space.check_search(run, there)
  if command not in MAKERS:
    return
  candidates.make_config(run)  # reads the files that it names
  if run.cfg.select.search.candidates:
    development_files.check_files(run)
  if command == "select" and run.workdir.pool.provenance():
    candidates.check_pool(run)  # the others do once they have made the pool


def list_columns(run: Run, command: str) -> Collection[str] | None:
  """Columns of the score table that the command's selection may name.

  Returns:
    Their names; None where they are those of a table that is not there, and that the
    command does not read.
  """
  there: set[str] = set()
  if command not in WHOLE and run.workdir.scores.provenance():
    with contextlib.suppress(InputError):  # a damaged table is made again
      there = set(score_table.list_columns(run.workdir.scores.path))
  if there and command == "select":
    return there
  try:
    return there | set(candidates.predict_columns(run.cfg))
  except InputError:
    if command in SCORERS:
      raise
    return there or None


def _check_comparison(run: Run, command: str) -> None:
  read_plan(run.cfg)


def _check_evaluation(run: Run, command: str) -> None:
  if command in ASKERS and not questions.asks_drawn(run):
    questions.check_files(run)


def _check_log(run: Run, command: str) -> None:
  if run.cfg.log.tensorboard and command in MAKERS:
    import_board()


RELATIONS: tuple[Callable[[Run, str], None], ...] = (
  _check_pool,
  _check_mesh,
  _check_recipes,
  _check_scores,
  _check_selection,
  _check_comparison,
  _check_evaluation,
  _check_log,
)
