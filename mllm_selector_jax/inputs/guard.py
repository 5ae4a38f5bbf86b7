"""Stops a run whose pool has lost too many of its rows."""

import contextlib
import json
from typing import Any

from mllm_selector_jax.data.pool import remedies
from mllm_selector_jax.inputs.drawn_demo import is_drawn
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError

LARGEST = 3  # how many of the most frequent reasons the message names
SUMMARY = "pool_summary.json"


def read_summary(run: Run) -> dict[str, Any]:
  """Read the summary of the checked pool in the workdir.

  Raises:
    InputError: The summary is missing or damaged.
  """
  path = run.workdir.pool.path.with_name(SUMMARY)
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise InputError(
      f"{path} is missing or damaged ({error}): run `mllm-selector check` again."
    ) from error


def read_before(run: Run, drawn: dict[str, Any] | None) -> dict[str, Any] | None:
  """Read the summary of the checked pool that a new check would replace.

  Args:
    run: The invocation.
    drawn: Settings by which the new pool is drawn; None if it is not drawn.

  Returns:
    The summary; None if there is no checked pool, if its summary is damaged, or if it
    was drawn with other settings, in which case its files were replaced.
  """
  provenance = run.workdir.pool.provenance()
  if provenance is None:
    return None
  before = provenance["config"].get("demo")
  if before and drawn and before != drawn:
    return None
  with contextlib.suppress(InputError):  # a damaged pool is checked again
    return read_summary(run)


def refuse_replacing(
  run: Run, summary: dict[str, Any], before: dict[str, Any], look: bool
) -> None:
  """Raise if a new check has lost too many rows to replace the current pool.

  Args:
    run: The invocation.
    summary: The summary of the new check.
    before: The summary of the current pool.
    look: Whether the command only looks at the pool and makes nothing else.

  Raises:
    InputError: The number of usable rows falls by more than `pool.most_lost`, or, if
      `look` is False, more than the share `pool.most_aside` is set aside.
  """
  faults = _find_fall(run, summary, before)
  if not look:
    faults |= _find_aside(run, summary)
  _refuse(faults, summary, "Nothing was replaced.")


def refuse_aside(run: Run) -> None:
  """Raise if too many rows of the checked pool are set aside.

  Raises:
    InputError: More than the share `pool.most_aside` of the rows is set aside.
  """
  summary = read_summary(run)
  _refuse(_find_aside(run, summary), summary, "Nothing was made of it.")


def _find_fall(run: Run, summary: dict, before: dict) -> dict[str, str]:
  allowed = run.cfg.pool.most_lost
  lost = 1 - summary["ok"] / max(1, before["ok"])
  if lost <= allowed:
    return {}
  text = (
    f"The usable rows fall from {before['ok']:,} in"
    f" {run.workdir.pool.path.with_name('pool.parquet')} to {summary['ok']:,}, by"
    f" {lost:.1%}, and pool.most_lost={allowed:g} allows {allowed:.1%}."
  )
  return {"pool.most_lost": text}


def _find_aside(run: Run, summary: dict) -> dict[str, str]:
  allowed, unusable = run.cfg.pool.most_aside, summary["rows"] - summary["ok"]
  # A drawn pool has some broken rows on purpose.
  share = (unusable - _count_broken(run)) / max(1, summary["rows"])
  if share <= allowed:
    return {}
  text = (
    f"{unusable:,} of the pool's {summary['rows']:,} rows"
    f" ({unusable / summary['rows']:.1%}) are set aside, and"
    f" pool.most_aside={allowed:g} allows {allowed:.1%}."
  )
  return {"pool.most_aside": text}


def _count_broken(run: Run) -> int:
  path = run.workdir.demo.path / "counts.json"
  if not is_drawn(run.cfg) or not path.exists():
    return 0
  return sum(json.loads(path.read_text())["broken"].values())


def _refuse(faults: dict[str, str], summary: dict, outcome: str) -> None:
  if not faults:
    return
  counts = {reason: about["rows"] for reason, about in summary["aside"].items()}
  order = sorted(counts, key=lambda reason: -counts[reason])
  lines = list(faults.values())
  if order:
    largest = ", ".join(f"{name} {counts[name]:,}" for name in order[:LARGEST])
    omitted = len(order) - LARGEST
    lines.append(
      f"Set aside: {largest}"
      + (f", and {omitted} more reasons." if omitted > 0 else ".")
    )
  lines += [f"  {name}: {remedies.REMEDIES[name]}" for name in order[:LARGEST]]
  options = " ".join(f"--config.{name}=1" for name in faults)
  lines.append(
    f"{outcome} Fix the pool or the setting, or accept these rows with {options}."
  )
  raise InputError("\n".join(lines))
