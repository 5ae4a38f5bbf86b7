"""Lists the arms of a run, and finds the pool and the scores of an arm."""

from typing import Any

from mllm_selector_jax.runs import arm_pointers, peers, shared_volume
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.selection.strategies import CONTROL
from mllm_selector_jax.types import InputError

MAIN = "main"
POINTERS = (MAIN, CONTROL)  # names that stand for the newest arm of their kind


def arms(run: Run) -> tuple[str, ...]:
  """Return the arms that a command is about.

  They are that of `--arm`; without it, "main" and the random control if it is on.

  Raises:
    InputError: There is no arm of the name that `--arm` gives.
  """
  if run.arm:
    return (check_arm(run, run.arm),)
  return POINTERS if run.cfg.select.control else (MAIN,)


def check_arm(run: Run, arm: str) -> str:
  """Return an arm's name, if the workdir has that arm.

  Raises:
    InputError: The workdir has no such arm.
  """
  if run.workdir.resolve(arm) in arm_pointers.list_arms(run.workdir.arms):
    return arm
  raise InputError(f"--arm={arm}: there is no such arm; {describe_arms(run)}.")


def describe_arms(run: Run) -> str:
  """Return the names of all arms and pointers, for a message."""
  folder = run.workdir.arms
  pointers = arm_pointers.list_pointers(folder)
  names = [f"{name} (which is {target})" for name, target in pointers.items()]
  names += [n for n in arm_pointers.list_arms(folder) if n not in pointers.values()]
  return f"there are {', '.join(names)}" if names else "the workdir has none yet"


def at_arm(run: Run, arm: str) -> tuple[Run, dict[str, Any]]:
  """Find the pool and the scores that an arm's selection was made from.

  Returns:
    The run at the workdir of that pool and those scores, and the selection's
    provenance.

  Raises:
    InputError: The arm has no selection, or it was made from other scores.
  """
  if arm not in POINTERS:
    check_arm(run, arm)
  selection = run.workdir.selection(arm)
  selection.digest()  # raises if the arm has no selection
  provenance = selection.provenance()
  assert provenance is not None
  workdir = run.workdir.at_scores(provenance["inputs"])
  if workdir is None:
    raise InputError(
      f"arms/{run.workdir.resolve(arm)}/selection was made from other scores or"
      " another pool; run `mllm-selector select` first."
    )
  return run.at(workdir), provenance


def point(run: Run, pointer: str, arm: str) -> None:
  """Let a pointer name an arm, and say so if it named another one.

  All processes call this.

  Args:
    run: The invocation.
    pointer: "main" or "random".
    arm: Name of the arm's folder.
  """
  work = run.workdir
  before = work.resolve(pointer)
  if peers.is_first_process() or run.bucket:
    link = run.bucket is None
    if warning := arm_pointers.write(work.arms, pointer, arm, link):
      run.say(f"Warning: {warning}", once=True)
    if run.bucket and peers.is_first_process():
      run.bucket.send_file(arm_pointers.pointer_path(work.arms, pointer))
  if not run.bucket:
    shared_volume.wait_for_file(arm_pointers.pointer_path(work.arms, pointer))
  work.pointed[work.arms, pointer] = arm
  if before not in (pointer, arm):
    run.say(f"{pointer} is now arms/{arm}; arms/{before} stays")
