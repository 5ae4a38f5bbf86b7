"""Weights from safetensors files straight into our parameters.

One tensor at a time is read, of it only what lies on this host's devices, and
written into its layer's place of the array on the devices. Host memory so holds
the parameters kept on this host and one tensor, whatever the model's size.
"""

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from mllm_selector_jax import types
from mllm_selector_jax.models import initial, mllm
from mllm_selector_jax.models.axes import path_name
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping, tensor_names
from mllm_selector_jax.models.huggingface.carried_tensors import list_passed
from mllm_selector_jax.models.huggingface.model_parts import Parts, find_parts
from mllm_selector_jax.models.huggingface.weights import Entry, Tensors, list_files
from mllm_selector_jax.types import InputError

PREFIXES = {
  "decoder": ("language_model.",),
  "vision": ("vision_tower.",),
  "projector": ("multi_modal_projector.", "image_newline"),
}


def read_params(
  path: str | os.PathLike, config: MllmConfig, shardings: Any = None
) -> types.Params:
  """The weights of a model directory, float32.

  Args:
    path: a directory that `read_config` reads, or a hub name.
    config: what `read_config` gave for it.
    shardings: the same tree of shardings, or None for the default device.

  Raises:
    InputError: with every missing, unexpected or misshapen tensor, or the first
      that holds values that are not finite.
  """
  return parts_params(find_parts(path), config, shardings)


def check_weights(path: str | os.PathLike, config: MllmConfig) -> None:
  """Compares the headers of a model directory's files with its config.

  Raises:
    InputError: with every missing, unexpected or misshapen tensor.
  """
  _check_headers(find_parts(path), config)


def parts_params(
  parts: Parts, config: MllmConfig, shardings: Any = None, seed: int = 0
) -> types.Params:
  """The weights of a model made of these parts; see `read_params`.

  Args:
    parts: where they are.
    config: the model's.
    shardings: how they are to lie.
    seed: of a projector that is drawn.
  """
  leaves = list(mapping.list_leaves(config))
  abstract = mllm.abstract(config)
  fresh = {}
  if parts.projector is None:
    drawn = initial.draw_params({"projector": abstract["projector"]}, config, seed)
    for path, array in jax.tree_util.tree_leaves_with_path(drawn):
      fresh[path_name(path)] = array
  tensors = _check_headers(parts, config)
  if config.decoder.tied:
    _check_tied_head(tensors)
  layouts = [SingleDeviceSharding(jax.devices()[0])] * len(leaves)
  if shardings is not None:
    layouts = jax.tree.leaves(shardings)
  arrays = []
  for leaf, layout in zip(leaves, layouts, strict=True):
    if leaf.path in fresh:
      arrays.append(jax.device_put(fresh[leaf.path], layout))
    else:
      arrays.append(_read_leaf(tensors, leaf, layout))
  return jax.tree.unflatten(jax.tree.structure(abstract), arrays)


def _check_headers(parts: Parts, config: MllmConfig) -> Tensors:
  """The tensors of all files, which are what the config wants."""
  leaves = list(mapping.list_leaves(config))
  passed = list_passed(parts.config)
  tensors = Tensors(config.decoder.names, config.vision.names, leaves, passed)
  _collect(parts, tensors)
  grown = parts.stored_vocab < config.decoder.vocab
  wanted: set[str] = set()
  for leaf in leaves:
    if parts.projector is not None or not leaf.path.startswith("projector/"):
      wanted.update(leaf.names)
      tensors.check(leaf, parts.stored_vocab if grown and leaf.by_token else None)
  if config.decoder.tied:
    wanted.add(tensor_names.TIED_HEAD)
  tensors.finish(parts.decoder, wanted)
  return tensors


def _collect(parts: Parts, tensors: Tensors) -> None:
  """Adds the headers of all files; of a part alone, only that part's tensors."""
  if parts.whole:
    tensors.add(list_files(parts.decoder))
    return
  own = list_files(parts.decoder)
  tensors.add(own, PREFIXES["decoder"])
  # A tower that was tuned lies in the checkpoint itself.
  tensors.add(own, PREFIXES["vision"])
  if not any(name.startswith(PREFIXES["vision"]) for name in tensors.where):
    tensors.add(list_files(parts.vision), PREFIXES["vision"])
  if parts.projector is not None:
    tensors.add(list_files(parts.projector), PREFIXES["projector"])


def _check_tied_head(tensors: Tensors) -> None:
  """A head that is saved though tied must be the embedding."""
  head = tensors.where.get(tensor_names.TIED_HEAD)
  table = tensors.where[tensor_names.NAMES["decoder/token_embedding"]]
  if head is None:
    return
  if head.shape != table.shape or not np.array_equal(head.read(), table.read()):
    raise InputError(
      f"{head.file}: {head.key} contradicts the embeddings, though config.json says"
      " tie_word_embeddings."
    )


def _read_leaf(tensors: Tensors, leaf: mapping.Leaf, layout: Sharding) -> jax.Array:
  entries = [tensors.where[name] for name in leaf.names]
  if not leaf.stacked:
    return _read_one(entries[0], leaf, layout)
  one = layout
  if isinstance(layout, NamedSharding):
    one = NamedSharding(layout.mesh, PartitionSpec(*layout.spec[1:]))
    if layout.spec and layout.spec[0] is not None:
      one = NamedSharding(layout.mesh, PartitionSpec())
  array = _make_zeros((len(entries), *leaf.ours), layout)()
  for layer, entry in enumerate(entries):
    array = _insert(array, _read_one(entry, leaf, one), np.int32(layer))
    # Otherwise the host reads on, and holds what the devices have not taken.
    array.block_until_ready()
  return array


@functools.lru_cache(maxsize=256)
def _make_zeros(shape: tuple[int, ...], layout: Sharding):
  make = functools.partial(jnp.zeros, shape, jnp.float32)
  return jax.jit(make, out_shardings=layout)


@functools.partial(jax.jit, donate_argnums=0)
def _insert(array: jax.Array, part: jax.Array, layer: jax.Array) -> jax.Array:
  start: tuple[jax.Array | int, ...] = (layer, *(0 for _ in part.shape))
  return jax.lax.dynamic_update_slice(array, part[None], start)


def _read_one(entry: Entry, leaf: mapping.Leaf, layout: Sharding) -> jax.Array:
  """One tensor in our layout; a shard reads its own slice of the file only."""
  cache: dict[Any, np.ndarray] = {}

  def read(index: tuple[slice, ...] | None) -> np.ndarray:
    assert index is not None, "jax asks for a part of the array"
    bounds = tuple(
      slice(*part.indices(size)[:2])
      for part, size in zip(index, leaf.ours, strict=True)
    )
    key = tuple((part.start, part.stop) for part in bounds)
    if key not in cache:
      cache.clear()  # one slice is held at a time; replicas follow each other
      cache[key] = _read_slice(entry, leaf, bounds)
    return cache[key]

  return jax.make_array_from_callback(leaf.ours, layout, read)


def _read_slice(
  entry: Entry, leaf: mapping.Leaf, bounds: tuple[slice, ...]
) -> np.ndarray:
  if leaf.layout in ("patch", "depthwise", "unfolded"):
    return leaf.to_ours(entry.read())[bounds]
  if leaf.layout == "experts" and entry.shape != leaf.shape:
    expert, row, column = bounds
    return entry.read((expert, column, row)).swapaxes(1, 2)
  if leaf.leading:
    return leaf.to_ours(entry.read((slice(0, 1),) * leaf.leading + bounds))
  theirs = bounds[::-1] if leaf.layout == "transposed" else bounds
  stored = entry.shape[0] if theirs else 0
  if not leaf.by_token or theirs[0].stop <= stored:
    return leaf.to_ours(entry.read(theirs))
  # Tokens that were added: the mean of those that are known, as LLaVA has it.
  mean = entry.read((slice(0, stored), theirs[1])).mean(axis=0, dtype=np.float64)
  rows = np.empty((theirs[0].stop - theirs[0].start, len(mean)), np.float32)
  known = max(0, stored - theirs[0].start)
  if known:
    rows[:known] = entry.read((slice(theirs[0].start, stored), theirs[1]))
  rows[known:] = mean
  return leaf.to_ours(rows)
