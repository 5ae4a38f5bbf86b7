"""Checkpoints of a training run, through orbax: state, data iterator, metrics.

The only module that knows orbax's interface. A checkpoint is written beside the
training and counts when it is whole: the last file that is put into it has the
hashes of all others, and only then does it get its name.
"""

import concurrent.futures
import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mllm_selector_jax import storage
from mllm_selector_jax.runs import artifacts, interrupts, peers
from mllm_selector_jax.types import InputError, RunError, Stopped

BEST_STEPS = 50  # whose mean training loss a checkpoint is judged by
WHOLE = "whole.json"
# What orbax writes after that, of times; its contents are not read.
TIMES = ("_CHECKPOINT_METADATA", "commit_success.txt")
WORK = "the checkpoint that is being written is ended"
_THREADS = 8  # that hash files


def _describe(state: Any) -> dict[str, str]:
  """Type and shape of every array of a state, by its name."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): (
      f"{leaf.dtype.name}{list(leaf.shape)}"
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }


class Checkpoints:
  """The checkpoints of one run; as a context it ends when the last one is written.

  In a run of several processes all must make it and call the same.

  Args:
    folder: where they lie, also of a cloud bucket.
    keep: the newest so many stay,
    best: and so many of those before whose last `BEST_STEPS` steps had the lowest
      mean training loss.
    warn: told of a checkpoint that is damaged.
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
      # The error at hand says more than one of these.
      with contextlib.suppress(Exception), interrupts.held(WORK):
        self._manager.close()
    # What another process is to write may never come.

  def save(
    self, step: int, state: Any, iterator: Any, metrics: list[dict[str, float]]
  ) -> None:
    """Begins to save the state after `step` steps, unless it is there already.

    What is given may change as soon as this returns.

    Raises:
      RunError: the checkpoint before could not be written.
    """
    self.wait()
    if step in self._manager.all_steps():
      return
    self._metrics, self._saving = list(metrics), step
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      shapes=ocp.args.JsonSave(_describe(state)),
      # Each process goes through its share of the same steps: one state for all.
      data=ocp.args.JsonSave(json.loads(json.dumps(iterator.get_state()))),
      history=ocp.args.JsonSave(self._metrics),
    )
    with self._explained(), interrupts.held(WORK):
      self._manager.save(step, args=args)

  def check(self) -> None:
    """Raises the RunError of a save that has ended without success."""
    if self._saving is not None and not self._manager.is_saving_in_progress():
      self.wait()

  def wait(self) -> None:
    """Waits until what is being saved is whole.

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
      lines = [line for line in str(error).splitlines() if line.strip()]
      raise RunError(
        f"The checkpoint of step {self._saving} could not be written to"
        f" {self._folder}: {lines[0][:400] if lines else type(error).__name__}. The one"
        " before is untouched"
      ) from error

  def restore(self, state: Any, iterator: Any) -> tuple[int, Any, list]:
    """The newest whole checkpoint's step, state (laid out as `state` is) and metrics.

    Without a checkpoint: 0, `state`, none. The iterator is set to go on where
    the checkpoint left it. Damaged checkpoints are removed.

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
    self._tidy()
    return step, restored["state"], list(self._metrics)

  def _tidy(self) -> None:
    """Removes what a run that was cut off after a save had still to remove."""
    steps = sorted(self._manager.all_steps())
    for step, stays in zip(steps, self._choose(steps), strict=True):
      if not stays:
        self._manager.delete(step)

  def _find_whole(self) -> int | None:
    """The newest step whose files are all there as they were written."""
    for step in sorted(self._manager.all_steps(), reverse=True):
      damage = self._find_damage(step) if peers.is_first_process() else ""
      if not peers.agree(bool(damage)):
        return step
      self._warn(
        f"{self._folder / str(step)} is damaged ({damage}) and is removed; the"
        " checkpoint before it, if there is one, is taken."
      )
      self._manager.delete(step)
    return None

  def _find_damage(self, step: int) -> str:
    """What is wrong with a checkpoint; "" where nothing is."""
    place = self._folder / str(step)
    try:
      wanted = json.loads((place / WHOLE).read_text())
    except (OSError, ValueError):
      return f"{WHOLE} is not there, or not whole"
    found = _hash_files(place)
    for name in sorted(wanted.keys() | found.keys()):
      if name not in found:
        return f"{name} is gone"
      if found[name] != wanted.get(name):
        return f"{name} is not as it was written"
    return ""

  def _check_shapes(self, step: int, wanted: dict[str, str]) -> None:
    only = ocp.args.Composite(shapes=ocp.args.JsonRestore())
    found = self._manager.restore(step, args=only)["shapes"]
    different = [
      name for name in sorted(found | wanted) if found.get(name) != wanted.get(name)
    ]
    if different:
      name = different[0]
      raise InputError(
        f"{self._folder / str(step)} is a checkpoint of another model:"
        f" {name} is {found.get(name, 'not there')}, and this model's is"
        f" {wanted.get(name, 'not there')} ({len(different)} such differences). Give"
        " back the old model and recipe, or another folder."
      )

  def _mark(self) -> None:
    """Puts the hashes of its files into the checkpoint that is about to be named."""
    for place in self._folder.iterdir():
      if place.name.partition(".")[0] == str(self._saving):
        artifacts.write_json(place / WHOLE, _hash_files(place))

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    """Which stay, oldest first: orbax's preservation policy."""
    return self._choose([one.step for one in checkpoints])

  def _choose(self, steps: list[int]) -> list[bool]:
    stay = set(steps[-self._keep :])
    before = sorted(set(steps) - stay, key=lambda step: (self._loss(step), step))
    stay.update(before[: self._best])
    return [step in stay for step in steps]

  def _loss(self, step: int) -> float:
    """The mean training loss of the steps before a checkpoint."""
    return float(np.mean([line["loss"] for line in self._metrics[:step][-BEST_STEPS:]]))


def _hash_files(place: epath.Path) -> dict[str, str]:
  """SHA-256 of every file of a checkpoint, by its name there.

  Of a file in a bucket the size: its store checks what it is given, and shows it
  when it is whole.
  """
  hash_file = _note_size if storage.is_remote(place) else storage.hash_file
  files = []
  folders = [place]
  while folders:
    for path in folders.pop().iterdir():
      if path.is_dir():
        folders.append(path)
      elif path.name not in (WHOLE, *TIMES):
        files.append(path)
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    hashes = pool.map(hash_file, files)
    return {
      str(path.relative_to(place)): found
      for path, found in zip(files, hashes, strict=True)
    }


def _note_size(path: epath.Path) -> str:
  return f"{path.stat().length} bytes"
