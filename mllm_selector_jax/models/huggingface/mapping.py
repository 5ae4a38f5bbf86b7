"""Our parameters as the tensors of a Hugging Face model: names, layouts, order."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from mllm_selector_jax import types
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface.tensor_names import (
  LEADING_AXES,
  NAMES,
  PROJECTORS,
  TOWERS,
)


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One of our arrays and the tensors that it is made of.

  Attributes:
    path: our path, joined by "/".
    names: the tensors; one a layer where layers are stacked.
    stacked: whether our array has a leading layer axis.
    ours: shape of one tensor in our layout, without the layer axis.
    layout: "same", "transposed", or "patch" (a convolution as one product).
    leading: axes of size 1 that theirs has before ours.
  """

  path: str
  names: tuple[str, ...]
  stacked: bool
  ours: tuple[int, ...]
  layout: str
  leading: int = 0

  @property
  def shape(self) -> tuple[int, ...]:
    """Of one tensor, theirs."""
    return self.to_theirs(np.broadcast_to(np.float32(0), self.ours)).shape

  @property
  def by_token(self) -> bool:
    """Whether their rows are the vocabulary's."""
    return self.path in ("decoder/token_embedding", "decoder/head")

  def to_ours(self, array: np.ndarray) -> np.ndarray:
    """One tensor, in our layout."""
    if self.layout == "patch":
      # [width, channel, row, column] to [(row, column, channel), width]
      return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    if self.leading:
      return array.reshape(array.shape[self.leading :])
    return array.T if self.layout == "transposed" else array

  def to_theirs(self, array: np.ndarray) -> np.ndarray:
    """One tensor, in theirs."""
    if self.layout == "patch":
      side = round((len(array) / 3) ** 0.5)
      return array.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)
    if self.leading:
      return array.reshape((1,) * self.leading + array.shape)
    return array.T if self.layout == "transposed" else array


def _make_leaf(path: str, shape: tuple[int, ...], known: dict[str, str]) -> Leaf:
  stem, _, kind = path.rpartition("/")
  stacked = "/layers/" in path
  if kind in ("kernel", "scale", "bias"):
    name = known[stem] + (".bias" if kind == "bias" else ".weight")
  else:
    name = known[path]
  layout = "same"
  if path == "vision/patch_embedding/kernel":
    layout = "patch"
  elif kind in ("kernel", "head"):
    layout = "transposed"
  layers = range(shape[0]) if stacked else (0,)
  names = tuple(name.replace("*", str(layer)) for layer in layers)
  leading = next((n for end, n in LEADING_AXES.items() if name.endswith(end)), 0)
  return Leaf(path, names, stacked, shape[1:] if stacked else shape, layout, leading)


def list_leaves(config: MllmConfig) -> Iterator[Leaf]:
  """Every array of the model without adapters, in the order of the flattened tree."""
  import jax

  from mllm_selector_jax.models import mllm
  from mllm_selector_jax.models.axes import path_name

  tower = TOWERS[config.vision.names]
  known = {**NAMES, **PROJECTORS[config.projector_names], **tower.names}
  base = mllm.abstract(dataclasses.replace(config, lora=None))
  for path, leaf in jax.tree_util.tree_leaves_with_path(base):
    yield _make_leaf(path_name(path), leaf.shape, known)


def to_tensors(
  config: MllmConfig, params: types.Params
) -> Iterator[tuple[str, np.ndarray]]:
  """Every tensor of the Hugging Face form, by name, float32, one at a time.

  Arrays may lie on the devices of several processes; then all must go through them.
  """
  import jax

  from mllm_selector_jax.runs import row_shares

  leaves = jax.tree.leaves(params)
  for leaf, array in zip(list_leaves(config), leaves, strict=True):
    for layer, name in enumerate(leaf.names):
      part = row_shares.fetch(array[layer] if leaf.stacked else array)
      part = np.asarray(part, np.float32)
      yield name, np.ascontiguousarray(leaf.to_theirs(part))
