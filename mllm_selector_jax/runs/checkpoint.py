"""Saves and restores checkpoints of training with orbax: state, data and metrics.

This is the only module that uses orbax's checkpoint manager. A checkpoint is written in
the background. The last file written into it holds the hashes of all others, and only
then is it renamed to its final name.
"""

import concurrent.futures
import contextlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mllm_selector_jax import storage
from mllm_selector_jax.runs import artifacts, interrupts, orbax_noise, peers
from mllm_selector_jax.types import InputError, RunError, Stopped

BEST_STEPS = 50  # number of steps whose mean training loss ranks a checkpoint
WHOLE = "whole.json"  # holds the hashes of the other files
# Files that orbax writes later; they hold times, and nothing reads them.
TIMES = ("_CHECKPOINT_METADATA", "commit_success.txt")
WORK = "the current checkpoint is completed"
_THREADS = 8  # number of threads that hash files
_LONGEST = 400  # characters of orbax's message
# Causes that may come late in a long message, before details of no use.
_CAUSE = re.compile(
  "No space left on device|Disk quota exceeded|Read-only file system|Stale file handle"
  "|Input/output error|Permission denied"
)


def _describe(state: Any) -> dict[str, str]:
  """Returns type and shape of every array of a state, by its name."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): (
      f"{leaf.dtype.name}{list(leaf.shape)}"
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }


def _shorten(error: Exception) -> str:
  """Returns the first line of an error's message, cut off, with the cause."""
  text = str(error)
  lines = [line for line in text.splitlines() if line.strip()]
  line = lines[0] if lines else type(error).__name__
  if len(line) <= _LONGEST:
    return line
  shown, cause = line[:_LONGEST], _CAUSE.search(text)
  if cause is None or cause[0] in shown:
    return f"{shown} ..."
  return f"{shown} ... {cause[0]}"


class Checkpoints:
  """The checkpoints of one training run.

  As a context manager, it waits for the last checkpoint when it exits. In a run of
  several processes, all of them must construct it and make the same calls.

  Args:
    folder: the folder of the checkpoints, which may be in a bucket.
    keep: how many of the newest checkpoints are kept.
    best: how many of the older checkpoints are kept, namely those whose last
      `BEST_STEPS` steps had the lowest mean training loss.
    warn: called with a message about a damaged checkpoint.
  """

  def __init__(
    self,
    folder: PurePath,
    keep: int = 1,
    best: int = 0,
    warn: Callable[[str], None] = lambda text: None,
  ):
    self._folder, self._warn = epath.Path(folder), warn
    self._keep, self._best = keep, best
    self._metrics: list[dict[str, float]] = []
    self._saving: int | None = None
    orbax_noise.keep_off()
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        create=True,
        cleanup_tmp_directories=True,
        preservation_policy=self,
        async_options=ocp.AsyncOptions(post_finalization_callback=self._mark),
      ),
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
    if error is None or isinstance(error, Stopped):
      self.wait()
      with interrupts.held(WORK):
        self._manager.close()
    elif jax.process_count() == 1:
      # The current error is more informative than one raised here.
      with contextlib.suppress(Exception), interrupts.held(WORK):
        self._manager.close()
    # In a run of several processes, closing would wait for a process that may be gone.

  def save(
    self, step: int, state: Any, iterator: Any, metrics: list[dict[str, float]]
  ) -> None:
    """Begins to save a checkpoint, unless there is one of this step already.

    The arguments may be changed as soon as this returns.

    Args:
      step: the number of steps that were done.
      state: a tree of arrays.
      iterator: the data iterator, whose position is saved.
      metrics: the metrics of all steps so far, with the key "loss".

    Raises:
      RunError: the previous checkpoint could not be written.
    """
    self.wait()
    if step in self._manager.all_steps():
      return
    self._metrics, self._saving = list(metrics), step
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      shapes=ocp.args.JsonSave(_describe(state)),
      # All processes are at the same step, so that one iterator state serves all.
      data=ocp.args.JsonSave(json.loads(json.dumps(iterator.get_state()))),
      history=ocp.args.JsonSave(self._metrics),
    )
    with self._explained(), interrupts.held(WORK):
      self._manager.save(step, args=args)

  def check(self) -> None:
    """Raises the RunError of a save that has failed in the background."""
    if self._saving is not None and not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Waits until the current checkpoint is complete.

    Raises:
      RunError: it could not be written.
    """
    if self._saving is not None:
      with self._explained(), interrupts.held(WORK):
        self._manager.wait_until_finished()
      self._saving = None

  @contextlib.contextmanager
  def _explained(self):
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      raise RunError(
        f"The checkpoint of step {self._saving} could not be written to"
        f" {self._folder}: {_shorten(error)}. The previous one is untouched"
      ) from error

  def restore(self, state: Any, iterator: Any) -> tuple[int, Any, list]:
    """Restores the newest complete checkpoint. Damaged ones are deleted.

    Args:
      state: a tree of arrays with the shapes, types and shardings to restore.
      iterator: the data iterator, which is set to the position of the checkpoint.

    Returns:
      The step, the state and the metrics; without a checkpoint, 0, `state` and [].

    Raises:
      InputError: the checkpoint is of another model or recipe.
    """
    step = self._find_whole()
    if step is None:
      return 0, state, []
    self._check_shapes(step, _describe(state))
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract),
        data=ocp.args.JsonRestore(),
        history=ocp.args.JsonRestore(),
      ),
    )
    iterator.set_state(restored["data"])
    self._metrics = list(restored["history"])
    self._delete_leftovers()
    return step, restored["state"], list(self._metrics)

  def _delete_leftovers(self) -> None:
    """Deletes checkpoints left behind by an interrupted cleanup."""
    steps = sorted(self._manager.all_steps())
    for step, is_kept in zip(steps, self._choose(steps), strict=True):
      if not is_kept:
        self._manager.delete(step)

  def _find_whole(self) -> int | None:
    """Returns the newest step whose files all match their hashes."""
    for step in sorted(self._manager.all_steps(), reverse=True):
      damage = self._find_damage(step) if peers.is_first_process() else ""
      if not peers.agree(bool(damage)):
        return step
      self._warn(
        f"{self._folder / str(step)} is damaged ({damage}) and is deleted; the"
        " checkpoint before it, if there is one, is used."
      )
      self._manager.delete(step)
    return None

  def _find_damage(self, step: int) -> str:
    """Returns what is wrong with a checkpoint; "" if nothing is."""
    folder = self._folder / str(step)
    try:
      expected = json.loads((folder / WHOLE).read_text())
    except (OSError, ValueError):
      return f"{WHOLE} is missing or incomplete"
    try:
      actual = _hash_files(folder)
    except _LinkError as error:
      return f"{error} is a link, which orbax would follow out of the checkpoint"
    for name in sorted(expected.keys() | actual.keys()):
      if name not in actual:
        return f"{name} is gone"
      if actual[name] != expected.get(name):
        return f"{name} is not as it was written"
    return ""

  def _check_shapes(self, step: int, shapes: dict[str, str]) -> None:
    """Refuses a checkpoint whose arrays differ from those described by `shapes`."""
    only_shapes = ocp.args.Composite(shapes=ocp.args.JsonRestore())
    saved = self._manager.restore(step, args=only_shapes)["shapes"]
    different = [
      name for name in sorted(saved | shapes) if saved.get(name) != shapes.get(name)
    ]
    if different:
      name = different[0]
      raise InputError(
        f"{self._folder / str(step)} is a checkpoint of another model:"
        f" {name} is {saved.get(name, 'not there')}, and this model's is"
        f" {shapes.get(name, 'not there')} ({len(different)} such differences). Give"
        " the old model and recipe, or another folder."
      )

  def _mark(self) -> None:
    """Writes the hashes of all files into a checkpoint, before orbax renames it."""
    for folder in self._folder.iterdir():
      if folder.name.partition(".")[0] == str(self._saving):
        artifacts.write_json(folder / WHOLE, _hash_files(folder))

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    """Implements orbax's preservation policy: which checkpoints to keep."""
    return self._choose([checkpoint.step for checkpoint in checkpoints])

  def _choose(self, steps: list[int]) -> list[bool]:
    """Returns for each step, oldest first, whether its checkpoint is kept."""
    kept = set(steps[-self._keep :])
    older = sorted(set(steps) - kept, key=lambda step: (self._loss(step), step))
    kept.update(older[: self._best])
    return [step in kept for step in steps]

  def _loss(self, step: int) -> float:
    """Returns the mean training loss of the last steps before a checkpoint."""
    return float(np.mean([line["loss"] for line in self._metrics[:step][-BEST_STEPS:]]))


class _LinkError(Exception):
  """A file or folder of a checkpoint is a symbolic link, which orbax never writes."""


def _hash_files(checkpoint: epath.Path) -> dict[str, str]:
  """Returns the SHA-256 of every file of a checkpoint, by its name.

  For files in a bucket it returns the size instead of the hash. The store itself
  verifies uploads, and shows a file only when it is complete.

  Raises:
    _LinkError: one of them is a link.
  """
  is_remote = storage.is_remote(checkpoint)
  hash_file = _read_size if is_remote else storage.hash_file
  files = []
  folders = [checkpoint]
  while folders:
    for path in folders.pop().iterdir():
      if not is_remote and os.path.islink(path):
        raise _LinkError(path.relative_to(checkpoint))
      if path.is_dir():
        folders.append(path)
      elif path.name not in (WHOLE, *TIMES):
        files.append(path)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    hashes = pool.map(hash_file, files)
    return {
      str(path.relative_to(checkpoint)): file_hash
      for path, file_hash in zip(files, hashes, strict=True)
    }


def _read_size(path: epath.Path) -> str:
  return f"{path.stat().length} bytes"
