"""Finds the pool rows of the settings of a selection that are lists of rows."""

from typing import Any

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.references import Rows, find_rows
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.selection.strategies import REFERENCE
from mllm_selector_jax.types import InputError

# Settings that are lists of rows. The reference, which has no row that is left out,
# comes last.
LISTS = ("force_in", "leave_out", "like", "reference")


def uses_reference(config: dict[str, Any]) -> bool:
  """Say whether selections of a config depend on the reference.

  Args:
    config: The section `select`, with "budget" or, for several selections, "budgets".
  """
  if config["strategy"] == REFERENCE:
    return True
  return any(map(budgets.is_relative, config.get("budgets", [config["budget"]])))


def require_reference(config: dict[str, Any]) -> None:
  """Raise an InputError if selections of a config need a reference that is not given.

  Args:
    config: As for `uses_reference`, with "reference".
  """
  if config["reference"]:
    return
  if config["strategy"] == REFERENCE:
    raise InputError(
      f"The strategy {REFERENCE!r} takes the rows of the mixture that is trained on"
      " today, which is not given; give it as --config.select.reference=FILE."
    )
  if "budgets" in config:
    texts, option = config["budgets"], "select.sweep.budgets"
  else:
    texts, option = [config["budget"]], "select.budget"
  for text in texts:
    budgets.relate(text, None, option)


def limits_flops(config: dict[str, Any]) -> bool:
  """Say whether a budget of a config is in FLOPs; arguments as for `uses_reference`."""
  texts = config.get("budgets", [config["budget"]])
  return any(budgets.parse(text).unit == budgets.FLOPS for text in texts)


def name_rows(
  run: Run, config: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
  """Replace the references in the config's lists by ascending row numbers.

  If a budget is in FLOPs, the config gets the key "flops", which says what a row costs.
  The selection can then be repeated without the model.

  Notes on how the rows were found are also printed as warnings.

  Args:
    run: A run whose pool is checked.
    config: The config from `candidates.make_config`.

  Returns:
    The config, and the notes on how the rows were found.

  If the reference has scores, the config gets the key "reference_scores": the score of
  each of its rows.

  Raises:
    InputError: An entry matches no row of the pool, or of the reference's more than
      `select.most_missing` allows, `force_in` or `like` names a row that was set aside,
      or no row of the reference can be used.
  """
  notes = []
  for name in LISTS:
    if entries := config.get(name):
      pool, option = base_model.open_pool(run), f"select.{name}"
      listed = run.once(
        (name, run.workdir.pool.digest(), tuple(entries)),
        lambda: _find(run, pool, entries, option),  # noqa: B023
      )
      rows, remarks = listed.rows, listed.notes
      if name == "reference":
        run.say(
          f"{option}: {listed.entries:,} entries name {len(rows):,} rows of the pool"
          + (f"; {listed.repeated:,} name no row anew" if listed.repeated else "")
          + (f"; {listed.missing:,} match no row" if listed.missing else ""),
          once=True,
        )
        rows, more = _take_usable(pool, rows, config["leave_out"] or [])
        remarks = (*remarks, *more)
        if listed.scores is not None:
          values = listed.scores[np.searchsorted(listed.rows, rows)].tolist()
          config = {**config, "reference_scores": values}
      elif name != "leave_out":  # an unusable row is left out anyway
        _refuse_unusable(pool, rows, option)
      config = {**config, name: rows.tolist()}
      notes += [f"{option}: {note}" for note in remarks]
  if limits_flops(config):
    config = {**config, "flops": describe_costs(run)}
  for note in notes:
    run.say(f"Warning: {note}", once=True)
  return config, tuple(notes)


def describe_costs(run: Run) -> dict[str, Any]:
  """Return what tuning on a row costs; see `flops.describe_costs`."""
  from mllm_selector_jax.models import huggingface
  from mllm_selector_jax.pipeline import flops  # imports jax

  model = huggingface.read_config(base_model.base_path(run))
  return flops.describe_costs(model, run.cfg.tune)


def _find(run: Run, pool: PoolTable, entries: list[Any], option: str) -> Rows:
  if option != "select.reference":
    return find_rows(pool, entries, option, run.progress)
  allowed = run.cfg.select.most_missing
  try:
    return find_rows(pool, entries, option, run.progress, allowed)
  except InputError as error:
    raise InputError(
      f"{error} The pool that is selected from must hold all rows of the reference; add"
      " the files that have them to pool.data, or say which share of the entries may be"
      " missing, as --config.select.most_missing=0.05."
    ) from error


def _refuse_unusable(pool: PoolTable, rows: Int[np.ndarray, " K"], option: str) -> None:
  unusable = rows[~pool.ok[rows]]
  if len(unusable):
    row = int(unusable[0])
    raise InputError(
      f"{option} names row {row:,} (id {pool.id[row]!r}), which was set aside:"
      f" {pool.reason[row]}. Take such rows ({len(unusable):,}) out of the list."
    )


def _take_usable(
  pool: PoolTable, rows: Int[np.ndarray, " K"], left_out: list[int]
) -> tuple[Int[np.ndarray, " n"], list[str]]:
  """Take the rows of the reference that a model can be tuned on, and count the others.

  Raises:
    InputError: There is no such row.
  """
  usable = rows[pool.ok[rows]]
  taken = np.setdiff1d(usable, np.array(left_out, np.int64))
  counts = {
    "the check set aside": len(rows) - len(usable),
    "select.leave_out leaves out": len(usable) - len(taken),
  }
  texts = [f"{text} {count:,}" for text, count in counts.items() if count]
  if not len(taken):
    raise InputError(
      f"select.reference: none of its {len(rows):,} rows can be used: "
      f"{' and '.join(texts)}. Give rows that a model can be tuned on."
    )
  if not texts:
    return taken, []
  return taken, [
    f"of its {len(rows):,} rows, {' and '.join(texts)}; the reference is the other"
    f" {len(taken):,}."
  ]
