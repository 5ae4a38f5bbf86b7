"""Removes arms, so that a kill in between leaves no arm that looks complete."""

import shutil

from mllm_selector_jax import listing
from mllm_selector_jax.pipeline.arm_list import format_size, measure_folder
from mllm_selector_jax.pipeline.arms import describe_arms
from mllm_selector_jax.runs import arm_pointers, peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError

_REMOVED = ".removed-"  # begins the name of a folder that is about to be deleted


def clean_arms(run: Run, names: str) -> None:
  """Remove arms, and say how many bytes that freed.

  A pointer among the names stands for the arm that it names, and is removed with it.
  Nothing is removed if one of the names is wrong.

  Args:
    run: The invocation.
    names: Names of arms or pointers, separated by commas.

  Raises:
    InputError: There is no such arm, or a pointer names it that is not given, too.
  """
  wanted = listing.split_names(names)
  if not wanted:
    raise InputError(f"clean needs --arm=NAME[,NAME]; {describe_arms(run)}.")
  work = run.workdir
  pointers = arm_pointers.list_pointers(work.arms)
  arms = list(dict.fromkeys(_find(run, name) for name in wanted))
  leading = {p: arm for p, arm in pointers.items() if arm in arms}
  for pointer, arm in leading.items():
    if pointer not in wanted:
      raise InputError(
        f"--arm={names}: {pointer} names arms/{arm}. Give --arm={pointer} to remove it"
        " all the same, or select another arm first."
      )
  if peers.is_first_process():
    _finish_removals(run)
    for pointer in leading:
      _remove_pointer(run, pointer)
    sizes = {arm: _remove(run, arm) for arm in arms}
    for arm, size in sizes.items():
      run.say(f"clean: arms/{arm} is removed ({format_size(size)})")
    for pointer in leading:
      run.say(f"clean: {pointer} names no arm now, until `select` makes one")
    run.say(f"clean: freed {format_size(sum(sizes.values()))}")
  peers.meet("the arms are removed")


def _find(run: Run, name: str) -> str:
  arm = run.workdir.resolve(name)
  if arm in arm_pointers.list_arms(run.workdir.arms):
    return arm
  raise InputError(f"--arm={name}: there is no such arm; {describe_arms(run)}.")


def _remove_pointer(run: Run, pointer: str) -> None:
  arms = run.workdir.arms
  if run.bucket:
    run.bucket.remove(arm_pointers.pointer_path(arms, pointer))
  arm_pointers.remove(arms, pointer)
  run.workdir.pointed.pop((arms, pointer), None)


def _remove(run: Run, arm: str) -> int:
  """Remove an arm, and return the bytes of its files."""
  folder = run.workdir.arms / arm
  size = measure_folder(folder)
  if run.bucket:
    run.bucket.remove(folder)
  removed = folder.with_name(f"{_REMOVED}{arm}")
  folder.rename(removed)
  shutil.rmtree(removed)
  return size


def _finish_removals(run: Run) -> None:
  """Delete what an interrupted call has still left."""
  for folder in run.workdir.arms.glob(f"{_REMOVED}*"):
    shutil.rmtree(folder)
