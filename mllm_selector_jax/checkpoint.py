"""Checkpoints of a training run, through orbax: state, data iterator, metrics.

The only module that knows orbax's interface.
"""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mllm_selector_jax.types import InputError


def _describe(state: Any) -> dict[str, str]:
  """Type and shape of every array of a state, by its name."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): (
      f"{leaf.dtype.name}{list(leaf.shape)}"
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }


class Checkpoints:
  """The checkpoints of one run: the newest `keep` of them."""

  def __init__(self, folder: Path, keep: int = 1):
    self._manager = ocp.CheckpointManager(
      folder.absolute(),
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, enable_async_checkpointing=False
      ),
    )

  def save(self, step: int, state: Any, iterator: Any, metrics: list) -> None:
    """Saves the state after `step` steps, unless it is there already."""
    import grain

    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        shapes=ocp.args.JsonSave(_describe(state)),
        data=grain.checkpoint.CheckpointSave(iterator),
        metrics=ocp.args.JsonSave(metrics),
      ),
    )

  def restore(self, state: Any, iterator: Any) -> tuple[int, Any, list]:
    """The newest checkpoint's step, state (laid out as `state` is) and metrics.

    Without a checkpoint: 0, `state`, none. The iterator is set to go on where
    the checkpoint left it.

    Raises:
      InputError: the checkpoint is of another model or recipe.
    """
    import grain

    step = self._manager.latest_step()
    if step is None:
      return 0, state, []
    self._check(step, _describe(state))
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract),
        data=grain.checkpoint.CheckpointRestore(iterator),
        metrics=ocp.args.JsonRestore(),
      ),
    )
    return step, restored["state"], restored["metrics"]

  def _check(self, step: int, wanted: dict[str, str]) -> None:
    only = ocp.args.Composite(shapes=ocp.args.JsonRestore())
    found = self._manager.restore(step, args=only)["shapes"]
    different = [
      name for name in sorted(found | wanted) if found.get(name) != wanted.get(name)
    ]
    if different:
      name = different[0]
      raise InputError(
        f"{self._manager.directory / str(step)} is a checkpoint of another model:"
        f" {name} is {found.get(name, 'not there')}, and this model's is"
        f" {wanted.get(name, 'not there')} ({len(different)} such differences). Give"
        " back the old model and recipe, or another folder."
      )

  def close(self) -> None:
    self._manager.close()
