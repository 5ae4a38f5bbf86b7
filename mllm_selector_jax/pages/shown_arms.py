"""Says which arms of a workdir a report shows, and under which names."""

from pathlib import Path

from mllm_selector_jax.runs import arm_pointers
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.selection.strategies import CONTROL

_FIRST = {"main": 0, CONTROL: 1}


def list_shown(work: Workdir) -> dict[str, Path]:
  """List the folders of the arms by name: main, its control, the others by name.

  An arm that a pointer names has the pointer's name. Arms that were selected from
  another pool, and are kept for their models, are left out.
  """
  names = {arm: arm for arm in arm_pointers.list_arms(work.arms)}
  for pointer, arm in arm_pointers.list_pointers(work.arms).items():
    if arm in names:
      names[arm] = pointer
  order = sorted(names, key=lambda arm: (_FIRST.get(names[arm], 2), names[arm]))
  return {
    names[arm]: work.arms / arm
    for arm in order
    if _has_files(work.arms / arm) and (names[arm] in _FIRST or _is_of_pool(work, arm))
  }


def _has_files(folder: Path) -> bool:
  """Return whether an arm has anything but what is still being made."""
  unfinished = (".partial", ".old")
  return any(path.parent.suffix not in unfinished for path in folder.glob("*/*"))


def _is_of_pool(work: Workdir, arm: str) -> bool:
  selection, pool = work.selection(arm).provenance(), work.pool.provenance()
  if not (selection and pool):
    return True
  return selection["inputs"].get("pool") == pool["digest"]
