"""Stops a run before it goes on with a pool that has lost many of its rows."""

import contextlib
import json
from typing import Any

from mllm_selector_jax.data.pool import remedies
from mllm_selector_jax.inputs.drawn_demo import is_drawn
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError

LARGEST = 3  # reasons that the message names
SUMMARY = "pool_summary.json"


def read_summary(run: Run) -> dict[str, Any]:
  """What the checked pool in the workdir holds.

  Raises:
    InputError: its summary is gone.
  """
  path = run.workdir.pool.path.with_name(SUMMARY)
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise InputError(
      f"{path} is gone or damaged ({error}): run `mllm-selector check` again."
    ) from error


def read_before(run: Run, drawn: dict[str, Any] | None) -> dict[str, Any] | None:
  """What the checked pool holds that a new check would replace.

  Args:
    run: the invocation.
    drawn: how the new pool is drawn; None where it is not.

  Returns:
    Its summary, or None where there is no whole one, or where it was drawn otherwise:
    its files are no longer there then.
  """
  made = run.workdir.pool.provenance()
  if made is None:
    return None
  before = made["config"].get("demo")
  if before and drawn and before != drawn:
    return None
  with contextlib.suppress(InputError):  # what is damaged is made again
    return read_summary(run)


def refuse_replacing(
  run: Run, found: dict[str, Any], before: dict[str, Any], look: bool
) -> None:
  """Refuses to replace a checked pool by one that has lost too much.

  Args:
    run: the invocation.
    found: the summary of the new check.
    before: that of the pool that is there.
    look: whether nothing is made of the pool by this command.

  Raises:
    InputError: the usable rows fall by more than `pool.most_lost`, or, unless this is
      a look, more than `pool.most_aside` is set aside.
  """
  faults = _find_fall(run, found, before)
  if not look:
    faults |= _find_aside(run, found)
  _refuse(faults, found, "Nothing was replaced.")


def refuse_aside(run: Run) -> None:
  """Refuses to make anything of a checked pool with too many rows set aside.

  Raises:
    InputError: more than `pool.most_aside` of the rows is set aside.
  """
  found = read_summary(run)
  _refuse(_find_aside(run, found), found, "Nothing was made of it.")


def _find_fall(run: Run, found: dict, before: dict) -> dict[str, str]:
  most = run.cfg.pool.most_lost
  lost = 1 - found["ok"] / max(1, before["ok"])
  if lost <= most:
    return {}
  text = (
    f"The usable rows fall from {before['ok']:,} in"
    f" {run.workdir.pool.path.with_name('pool.parquet')} to {found['ok']:,}, by"
    f" {lost:.1%}, and pool.most_lost={most:g} allows {most:.1%}."
  )
  return {"pool.most_lost": text}


def _find_aside(run: Run, found: dict) -> dict[str, str]:
  most, aside = run.cfg.pool.most_aside, found["rows"] - found["ok"]
  # A drawn pool has some broken rows on purpose.
  share = (aside - _count_broken(run)) / max(1, found["rows"])
  if share <= most:
    return {}
  text = (
    f"{aside:,} of the pool's {found['rows']:,} rows ({aside / found['rows']:.1%}) are"
    f" set aside, and pool.most_aside={most:g} allows {most:.1%}."
  )
  return {"pool.most_aside": text}


def _count_broken(run: Run) -> int:
  path = run.workdir.demo.path / "counts.json"
  if not is_drawn(run.cfg) or not path.exists():
    return 0
  return sum(json.loads(path.read_text())["broken"].values())


def _refuse(faults: dict[str, str], found: dict, outcome: str) -> None:
  if not faults:
    return
  counts = {reason: each["rows"] for reason, each in found["aside"].items()}
  order = sorted(counts, key=lambda reason: -counts[reason])
  lines = list(faults.values())
  if order:
    named = ", ".join(f"{name} {counts[name]:,}" for name in order[:LARGEST])
    more = len(order) - LARGEST
    lines.append(
      f"Set aside: {named}" + (f", and {more} more reasons." if more > 0 else ".")
    )
  lines += [f"  {name}: {remedies.REMEDIES[name]}" for name in order[:LARGEST]]
  options = " ".join(f"--config.{name}=1" for name in faults)
  lines.append(
    f"{outcome} Mend the pool or the setting, or go on with these rows by {options}."
  )
  raise InputError("\n".join(lines))
