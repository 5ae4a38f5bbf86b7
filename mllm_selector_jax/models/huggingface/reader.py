"""Weights from safetensors files into our parameters, one tensor at a time."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors needs
import numpy as np
import safetensors

from mllm_selector_jax import types
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping
from mllm_selector_jax.models.huggingface.source import find_model, read_json
from mllm_selector_jax.types import InputError

DTYPES = ("F64", "F32", "F16", "BF16")
SHARD_NAME = re.compile(r"[\w.-]+\.safetensors")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def _list_files(folder: Path) -> list[Path]:
  """The safetensors files that hold the weights."""
  single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
  if single.is_file():
    return [single]
  if not index.is_file():
    pickles = sorted(path.name for end in PICKLES for path in folder.glob(end))
    if pickles:
      raise InputError(
        f"{folder} has pickled weights only ({', '.join(pickles)}), which are never"
        " read, since they can run code; convert them to model.safetensors."
      )
    raise InputError(
      f"{folder} has no weights: neither {single.name} nor {index.name} is there."
    )
  shards = read_json(index).get("weight_map")
  if not isinstance(shards, dict) or not shards:
    raise InputError(f"{index} has no weight_map from tensors to files.")
  names = set()
  for tensor, name in shards.items():
    if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
      raise InputError(
        f"{index}: tensor {tensor} is said to be in {name!r}; only a *.safetensors"
        " file beside the index is allowed."
      )
    names.add(name)
  missing = sorted(name for name in names if not (folder / name).is_file())
  if missing:
    raise InputError(f"{index} names files that are missing: {', '.join(missing)}.")
  return [folder / name for name in sorted(names)]


@contextlib.contextmanager
def _open(files: list[Path]) -> Iterator[dict[Path, Any]]:
  with contextlib.ExitStack() as stack:
    opened = {}
    for path in files:
      try:
        handle = safetensors.safe_open(str(path), framework="numpy")
        opened[path] = stack.enter_context(handle)
      except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
          f"{path} is not a whole safetensors file: {error}. Copy or convert it anew."
        ) from error
    yield opened


class _Tensors:
  """The tensors of all files under their canonical names, with what is wrong."""

  def __init__(self, opened: dict[Path, Any]):
    self.problems: list[str] = []
    self.where: dict[str, tuple[Any, str]] = {}
    for path, handle in opened.items():
      for name in handle.keys():
        if mapping.BUFFERS.search(name):
          continue
        known = mapping.canonical_name(name)
        if known in self.where:
          self.problems.append(f"twice there: {name} (again in {path.name})")
        self.where[known] = (handle, name)

  def check(self, name: str, shape: tuple[int, ...]) -> bool:
    """Whether the tensor is there in this shape; notes it otherwise."""
    if name not in self.where:
      self.problems.append(f"missing: {name}, shape {list(shape)}")
      return False
    handle, key = self.where[name]
    header = handle.get_slice(key)
    found = tuple(header.get_shape())
    if found != shape:
      self.problems.append(
        f"misshapen: {key}, shape {list(found)}, wanted {list(shape)}"
      )
    elif header.get_dtype() not in DTYPES:
      self.problems.append(f"wrong type: {key} is {header.get_dtype()}")
    else:
      return True
    return False

  def read(self, name: str) -> np.ndarray:
    """The tensor as float32; notes values that are not finite."""
    handle, key = self.where[name]
    array = handle.get_tensor(key).astype(np.float32)
    if not np.isfinite(array).all():
      bad = array.size - np.isfinite(array).sum()
      self.problems.append(f"not finite: {key}, {bad} of {array.size} values")
    return array


def _read_leaf(tensors: _Tensors, leaf: mapping.Leaf, shape: tuple) -> np.ndarray:
  array = np.zeros(shape, np.float32)
  parts = array if leaf.stacked else array[None]
  for index, name in enumerate(leaf.names):
    if tensors.check(name, leaf.shape):
      parts[index] = leaf.to_ours(tensors.read(name))
  return array


def _check_tied_head(tensors: _Tensors, embedding: np.ndarray) -> None:
  """A head that is saved though tied must be the embedding."""
  if mapping.TIED_HEAD not in tensors.where:
    return
  if tensors.check(mapping.TIED_HEAD, embedding.shape) and not np.array_equal(
    tensors.read(mapping.TIED_HEAD), embedding
  ):
    tensors.problems.append(
      f"contradictory: {mapping.TIED_HEAD} differs from the embeddings, though"
      " config.json says tie_word_embeddings"
    )


def read_params(
  path: str | os.PathLike, config: MllmConfig, shardings: Any = None
) -> types.Params:
  """The weights of a model directory, float32.

  Args:
    path: a Hugging Face directory in LLaVA form, saved by transformers 4 or 5.
    config: what `read_config` gave for it.
    shardings: the same tree of shardings, or None for the default device.

  Raises:
    InputError: with every missing, unexpected, misshapen or not finite tensor.
  """
  folder = find_model(path)
  shapes, structure = jax.tree.flatten(mllm.abstract(config))
  layouts = [None] * len(shapes)
  if shardings is not None:
    layouts = jax.tree.leaves(shardings)
  with _open(_list_files(folder)) as opened:
    tensors = _Tensors(opened)
    wanted, arrays = set(), []
    for leaf, shape, layout in zip(
      mapping.list_leaves(config), shapes, layouts, strict=True
    ):
      wanted.update(leaf.names)
      array = _read_leaf(tensors, leaf, shape.shape)
      if config.decoder.tied and leaf.path == "decoder/token_embedding":
        wanted.add(mapping.TIED_HEAD)
        _check_tied_head(tensors, array)
      # Nothing is put on a device that will be thrown away.
      arrays.append(None if tensors.problems else jax.device_put(array, layout))
    tensors.problems += [
      f"unexpected: {key}"
      for name, (_, key) in sorted(tensors.where.items())
      if name not in wanted
    ]
    if tensors.problems:
      raise InputError(
        f"{folder}: the weights do not fit config.json,"
        f" {len(tensors.problems)} problems:\n  " + "\n  ".join(tensors.problems)
      )
  return jax.tree.unflatten(structure, arrays)
