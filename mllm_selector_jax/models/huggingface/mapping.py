"""Our parameters as the tensors of a Hugging Face model: names, layouts, order."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mllm_selector_jax import types
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.decoder_config import split_kind
from mllm_selector_jax.models.huggingface.tensor_names import (
  DECODERS,
  LEADING_AXES,
  MODELS,
  join_fused,
  list_fused,
  published_name,
)
from mllm_selector_jax.models.huggingface.tower_names import TOWERS


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One of our arrays and the tensors that it is made of.

  Attributes:
    path: our path, joined by "/".
    names: the tensors' canonical names; one a layer where layers are stacked.
    stacked: whether our array has a leading layer axis.
    ours: shape of one tensor in our layout, without the layer axis.
    layout: "same", "transposed", "patch" (a convolution as one product; theirs has axes
      for frames, where there are several, rows and columns), "unfolded" (transposed,
      and theirs has the channels of merged patches one after the other, each of all
      patches; ours has the patches, each with all channels), "experts" (the same,
      but a file may hold each expert's matrix transposed), or "depthwise" (a
      convolution of each channel for itself).
    leading: axes of size 1 that theirs has before ours.
    frames, side: frames of a video, and pixels or patches along the sides, that a
      convolution reaches over.
  """

  path: str
  names: tuple[str, ...]
  stacked: bool
  ours: tuple[int, ...]
  layout: str
  leading: int = 0
  frames: int = 1
  side: int = 1

  @property
  def shape(self) -> tuple[int, ...]:
    """Of one tensor, theirs."""
    return self.to_theirs(np.broadcast_to(np.float32(0), self.ours)).shape

  def holds(self, shape: tuple[int, ...]) -> bool:
    """Whether one tensor of a file may have this shape."""
    if self.layout == "experts" and shape == self.turned:
      return True
    return shape == self.shape

  @property
  def turned(self) -> tuple[int, ...]:
    """The shape of one tensor of experts whose matrices are transposed."""
    return (self.ours[0], self.ours[2], self.ours[1])

  @property
  def by_token(self) -> bool:
    """Whether their rows are the vocabulary's."""
    return self.path in ("decoder/token_embedding", "decoder/head")

  @property
  def _patches(self) -> int:
    """Merged patches, each with as many channels as leave the layer."""
    return self.ours[0] // self.ours[1]

  def to_ours(self, array: np.ndarray) -> np.ndarray:
    """One tensor, in our layout."""
    if self.layout == "patch":
      # [width, channel, (frame,) row, column] to [(frame, row, column, channel), width]
      return np.moveaxis(array, (0, 1), (-1, -2)).reshape(-1, array.shape[0])
    if self.layout == "depthwise":
      return array[:, 0].T
    if self.layout == "unfolded":
      return array.reshape(len(array), -1, self._patches).T.reshape(self.ours)
    if self.leading:
      return array.reshape(array.shape[self.leading :])
    return array.T if self.layout == "transposed" else array

  def to_theirs(self, array: np.ndarray) -> np.ndarray:
    """One tensor, in theirs; or an adapter's first matrix, of as many inputs."""
    if self.layout == "patch":
      axes = (self.frames,) * (self.frames > 1) + (self.side, self.side)
      inputs, outputs = array.shape
      cut = array.reshape(*axes, inputs // math.prod(axes), outputs)
      return np.moveaxis(cut, (-1, -2), (0, 1))
    if self.layout == "depthwise":
      return array.T[:, None]
    if self.layout == "unfolded":
      rows, width = array.shape
      return array.reshape(self._patches, -1, width).T.reshape(width, rows)
    if self.leading:
      return array.reshape((1,) * self.leading + array.shape)
    return array.T if self.layout == "transposed" else array


class Stored(NamedTuple):
  """A tensor of an export.

  Attributes:
    name: as it is published.
    parts: which leaves its rows come from, one after the other: numbers in the order of
      `list_leaves`, with the leaves.
    layer: of the leaves.
  """

  name: str
  parts: tuple[tuple[int, Leaf], ...]
  layer: int

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the tensor."""
    shapes = [leaf.shape for _, leaf in self.parts]
    if len(shapes) == 1:
      return shapes[0]
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])

  @property
  def size(self) -> int:
    """How many numbers it holds."""
    return math.prod(self.shape)


def _find_convolution(config: MllmConfig, path: str) -> tuple[int, int] | None:
  """Frames and side of a kernel that is a convolution in transformers."""
  if path == "vision/patch_embedding/kernel" and not config.vision.patch_linear:
    return config.vision.frames, config.vision.patch_size
  if path == "projector/first/kernel" and config.projector_gated:
    return 1, config.merge
  return None


def _make_leaf(
  config: MllmConfig, path: str, shape: tuple[int, ...], known: dict[str, str]
) -> Leaf:
  plain, own_kind = split_kind(path)
  kind = path.rpartition("/")[2]
  stacked = "/layers/" in path
  # What is named with its kind is no layer's, and stored as it is multiplied. Layers of
  # one kind may have names of their own for what others have, too.
  bare = next((known[own] for own in (path, plain) if own in known), None)
  if bare is not None:
    name = bare
  else:
    stems = [own.rpartition("/")[0] for own in (path, plain)]
    name = known[stems[0] if stems[0] in known else stems[1]]
    name += ".bias" if kind == "bias" else ".weight"
  layout = "same"
  convolution = _find_convolution(config, path)
  if convolution is not None:
    layout = "patch"
  elif path == "projector/narrow/kernel":
    layout = "unfolded"
  elif kind == "convolution":
    layout = "depthwise"
  elif kind in ("gate_up", "down"):
    layout = "experts"
  elif kind in ("head", "router") or (kind == "kernel" and bare is None):
    layout = "transposed"
  layers: Sequence[int] = range(shape[0]) if stacked else (0,)
  if own_kind:
    layers = [
      number for number, other in enumerate(config.decoder.order) if other == own_kind
    ]
  names = tuple(name.replace("*", str(layer)) for layer in layers)
  leading = next((n for end, n in LEADING_AXES.items() if name.endswith(end)), 0)
  own = shape[1:] if stacked else shape
  return Leaf(path, names, stacked, own, layout, leading, *(convolution or ()))


def list_leaves(config: MllmConfig) -> Iterator[Leaf]:
  """Every array of the model without adapters, in the order of the flattened tree."""
  import jax

  from mllm_selector_jax.models import mllm
  from mllm_selector_jax.models.axes import path_name

  known = {
    **MODELS[config.names],
    **DECODERS[config.decoder.names].names,
    **TOWERS[config.vision.names].names,
  }
  base = mllm.abstract(dataclasses.replace(config, lora=None))
  for path, leaf in jax.tree_util.tree_leaves_with_path(base):
    yield _make_leaf(config, path_name(path), leaf.shape, known)


def list_stored(config: MllmConfig) -> list[Stored]:
  """Every tensor of an export, in the order in which exports have them."""
  fused = list_fused(config.decoder.names, config.vision.names)
  order = [part for kind in fused for part in kind.parts]
  parts: dict[tuple[str, int], list[tuple[int, str, Leaf]]] = {}
  for number, leaf in enumerate(list_leaves(config)):
    for layer, name in enumerate(leaf.names):
      joined = join_fused(name, fused)
      parts.setdefault((joined, layer), []).append((number, name, leaf))

  def place(part: tuple[int, str, Leaf]) -> int:
    return next((n for n, mark in enumerate(order) if mark in part[1]), 0)

  return [
    Stored(
      published_name(name, config.names),
      tuple((number, leaf) for number, _, leaf in sorted(found, key=place)),
      layer,
    )
    for (name, layer), found in parts.items()
  ]


def to_tensors(
  config: MllmConfig, params: types.Params
) -> Iterator[tuple[str, np.ndarray]]:
  """Every tensor of the Hugging Face form, by name, float32, one at a time.

  Arrays may lie on the devices of several processes; then all must go through them.
  """
  import jax

  from mllm_selector_jax.runs import row_shares

  leaves = jax.tree.leaves(params)
  for stored in list_stored(config):
    rows = []
    for number, leaf in stored.parts:
      array = leaves[number]
      part = row_shares.fetch(array[stored.layer] if leaf.stacked else array)
      rows.append(leaf.to_theirs(np.asarray(part, np.float32)))
    whole = rows[0] if len(rows) == 1 else np.concatenate(rows)
    yield stored.name, np.asarray(whole, order="C")
