"""Tensors of safetensors files, by name: their headers, and slices of them."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors needs
import numpy as np
import safetensors

from mllm_selector_jax.models.huggingface import mapping, tensor_names
from mllm_selector_jax.models.huggingface.source import read_json
from mllm_selector_jax.types import InputError

DTYPES = ("F64", "F32", "F16", "BF16")
FLOAT_WEIGHTS = (
  "Only float32, float16 and bfloat16 weights are read: give the model that it was"
  " quantised from."
)
# Types, and ends of tensors' names, that quantised weights alone have.
PACKED = ("F8", "F4", "U8", "I8", "U32")
PACKED_NAMES = re.compile(
  r"\.(qweight|qzeros|g_idx|SCB|absmax|weight_(packed|scale\w*))$"
)
MOST_SHOWN = 2000  # tensors that a message lists
SHARD_NAME = re.compile(r"[\w.-]+\.safetensors")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.bin.index.json")
CONVERT = "python -m mllm_selector_jax.models.huggingface.convert"


def list_files(path: Path) -> list[Path]:
  """The safetensors files that hold a directory's weights; a file is its own.

  Raises:
    InputError: there are none, or the index names what is not there.
  """
  if path.is_file():
    if path.suffix != ".safetensors":
      raise InputError(
        f"{path} is not a safetensors file; pickled files are never read, since they"
        f" can run code. Convert it: {CONVERT} {path}"
      )
    return [path]
  single, index = path / "model.safetensors", path / "model.safetensors.index.json"
  more = [path / "mm_projector.safetensors"]  # of LLaVA's stage 1 and LoRA runs
  more = [file for file in more if file.is_file()]
  if single.is_file():
    return [single, *more]
  if not index.is_file():
    if more:
      return more
    pickles = sorted(found.name for end in PICKLES for found in path.glob(end))
    if pickles:
      raise InputError(
        f"{path} has pickled weights only ({', '.join(pickles)}), which are never"
        f" read, since they can run code. Convert them: {CONVERT} {path}"
      )
    hub = ""
    if path.parent.name == "snapshots":
      hub = (
        " Of the hub, only safetensors are fetched; where it has pickled weights alone,"
        " `hf download` the whole model to a folder, and convert them:"
        f" {CONVERT} FOLDER"
      )
    raise InputError(
      f"{path} has no weights: neither {single.name} nor {index.name} is there.{hub}"
    )
  shards = read_json(index).get("weight_map")
  if not isinstance(shards, dict) or not shards:
    raise InputError(f"{index} has no weight_map from tensors to files.")
  for tensor, name in shards.items():
    if not isinstance(name, str) or not SHARD_NAME.fullmatch(name):
      raise InputError(
        f"{index}: tensor {tensor} is said to be in {name!r}; only a *.safetensors"
        " file beside the index is allowed."
      )
  names = sorted(set(shards.values()))
  missing = [name for name in names if not (path / name).is_file()]
  if missing:
    raise InputError(f"{index} names files that are missing: {', '.join(missing)}.")
  return [path / name for name in names] + more


def list_keys(path: Path) -> list[str]:
  """The names of a file's tensors; none if it is not a whole safetensors file."""
  try:
    with safetensors.safe_open(str(path), framework="numpy") as handle:
      return list(handle.keys())
  except (OSError, safetensors.SafetensorError):
    return []  # named when the weights are read


def open_headers(path: Path) -> Iterator[tuple[str, Any]]:
  """The names of a file's tensors, each with the slices of it that can be taken.

  Raises:
    InputError: the file is not a whole safetensors file.
  """
  try:
    with safetensors.safe_open(str(path), framework="numpy") as handle:
      for key in handle.keys():
        yield key, handle.get_slice(key)
  except (OSError, safetensors.SafetensorError) as error:
    raise InputError(
      f"{path} is not a whole safetensors file: {error}. Its download may have"
      " been cut off; copy or convert it anew."
    ) from error


@dataclasses.dataclass(frozen=True)
class Entry:
  """A tensor in a file, as its header has it, or some of its rows.

  Attributes:
    file, key: where it is.
    shape: of the rows.
    dtype: as safetensors names it.
    start: the first of the rows.
    partial: whether the file's tensor has other rows as well.
  """

  file: Path
  key: str
  shape: tuple[int, ...]
  dtype: str
  start: int = 0
  partial: bool = False

  @property
  def numbers(self) -> int:
    """How many the rows hold."""
    return math.prod(self.shape)

  @property
  def bytes(self) -> int:
    """Of the rows in the file."""
    bits = re.search(r"\d+", self.dtype)
    return self.numbers * (int(bits[0]) // 8 if bits else 1)

  def read(self, index: tuple[slice, ...] = ()) -> np.ndarray:
    """The tensor, or the slice of it, as float32.

    The file is opened and closed, so that none of its pages stay mapped.

    Raises:
      InputError: values that are not finite.
    """
    if self.partial:
      rows = index[0] if index else slice(0, self.shape[0])
      index = (slice(self.start + rows.start, self.start + rows.stop), *index[1:])
    with safetensors.safe_open(str(self.file), framework="numpy") as handle:
      array = (
        handle.get_slice(self.key)[index] if index else (handle.get_tensor(self.key))
      )
    array = np.asarray(array).astype(np.float32)
    # Both carry a NaN on, and neither makes another array.
    ends = [array.min(), array.max()] if array.size else []
    unbounded = tensor_names.BOUNDS.search(self.key) and not np.isnan(ends).any()
    if not (unbounded or np.isfinite(ends).all()):
      bad = int(array.size - np.isfinite(array).sum())
      raise InputError(
        f"{self.file}: {self.key} has {bad} of {array.size} values that are not"
        " finite; the file is broken, or the training that made it was."
      )
    return array


class Tensors:
  """The tensors of several files under their canonical names.

  Attributes:
    where: the tensors.
    problems: what is wrong, a line each.
  """

  def __init__(
    self,
    decoder: str,
    tower: str,
    leaves: Iterable[mapping.Leaf],
    passed: Sequence[re.Pattern] = (),
  ):
    """Begins without files.

    Args:
      decoder: the key of `tensor_names.DECODERS` for the decoder's names.
      tower: the key of `tower_names.TOWERS` for the vision tower's names.
      leaves: what is wanted, which says how many rows each part of a tensor has.
      passed: of canonical names that are passed over.
    """
    self.tower, self.passed = tower, (tensor_names.UNUSED, *passed)
    self.fused = tensor_names.list_fused(decoder, tower)
    self.rows = {name: leaf.shape[:1] for leaf in leaves for name in leaf.names}
    self.where: dict[str, Entry] = {}
    self.problems: list[str] = []

  def add(self, files: Iterable[Path], prefixes: tuple[str, ...] = ("",)) -> None:
    """Adds what the files hold of the canonical names with these beginnings.

    Raises:
      InputError: a file is not a whole safetensors file.
    """
    for path in files:
      for key, header in open_headers(path):
        self._add(path, key, header, prefixes)

  def _add(self, path: Path, key: str, header, prefixes: tuple[str, ...]) -> None:
    name = tensor_names.canonical_name(key, self.tower)
    if any(pattern.search(name) for pattern in self.passed):
      return
    if not name.startswith(prefixes):
      return
    names = tensor_names.split_fused(name, self.fused)
    shape, dtype = tuple(header.get_shape()), header.get_dtype()
    for part in names:
      if part in self.where:
        self.problems.append(f"twice there: {key} (again in {path.name})")
    if len(names) == 1 or not set(names) <= set(self.rows):
      self.where[name] = Entry(path, key, shape, dtype)
      return
    rows = [sum(self.rows[part]) for part in names]
    if shape[:1] != (sum(rows),):
      wanted = " + ".join(map(str, rows))
      self.problems.append(
        f"misshapen: {key}, shape {list(shape)}, wanted {wanted} rows"
      )
    start = 0
    for part, count in zip(names, rows, strict=True):
      own = (count, *shape[1:])
      self.where[part] = Entry(path, key, own, dtype, start, partial=True)
      start += count

  def check(self, leaf: mapping.Leaf, rows: int | None = None) -> None:
    """Notes what is missing or misshapen of a leaf's tensors.

    Args:
      leaf: one of our arrays.
      rows: rows that are stored of it, where these are fewer than wanted.
    """
    shape = leaf.shape if rows is None else (rows, *leaf.shape[1:])
    for name in leaf.names:
      entry = self.where.get(name)
      if entry is None:
        self.problems.append(f"missing: {name}, shape {list(shape)}")
      elif entry.shape != shape and not leaf.holds(entry.shape):
        self.problems.append(
          f"misshapen: {entry.key}, shape {list(entry.shape)}, wanted {list(shape)}"
        )
      elif entry.dtype not in DTYPES:
        self.problems.append(f"wrong type: {entry.key} is {entry.dtype}")

  def finish(self, folder: Path, wanted: set[str]) -> None:
    """Refuses the whole if anything was noted, or is there and not wanted.

    Raises:
      InputError: with every missing, unexpected or misshapen tensor.
    """
    packed = [
      f"{entry.key} ({entry.dtype})"
      for entry in self.where.values()
      if entry.dtype.startswith(PACKED) or PACKED_NAMES.search(entry.key)
    ]
    if packed:
      raise InputError(
        f"{folder} has quantised weights: {len(packed)} of {len(self.where)} tensors,"
        f" such as {packed[0]}. {FLOAT_WEIGHTS}"
      )
    unexpected = sorted(set(self.where) - wanted)
    problems = self.problems + [f"unexpected: {self.where[n].key}" for n in unexpected]
    shown = problems[:MOST_SHOWN]
    if len(shown) < len(problems):
      shown.append(f"and {len(problems) - len(shown):,} more")
    if problems:
      raise InputError(
        f"{folder}: the weights do not fit config.json, {len(problems)} problems:\n  "
        + "\n  ".join(shown)
      )
