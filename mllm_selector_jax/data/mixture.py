"""What `pool.data` names: files, folders, patterns, or mixtures of them.

A mixture is a YAML file in LLaVA-NeXT's form:

    datasets:
      - json_path: llava.json
        sampling_strategy: random:20%

with the strategies all, first:N, end:N and random:N, where N may end in %. Unlike
there, the rows taken keep the order of their file, and which are taken at random
follows from the run's seed.
"""

import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data import storage
from mllm_selector_jax.types import InputError

_STRATEGY = re.compile(r"(first|end|random):(\d+)(%?)")
_SUFFIXES = (".json", ".jsonl", ".parquet", ".tar")
_RECORDS = re.compile(r"(?P<split>.+)\.array_record(-\d+-of-\d+)?")
_MOST_YAML = 1 << 20  # bytes


class Part(NamedTuple):
  """A file of the pool, and which of its rows are taken: see `choose`."""

  file: str
  take: str = "all"


def expand(data: Sequence[str]) -> list[Part]:
  """The files that are meant, in order.

  Args:
    data: files of any format; patterns (`*`, `?`, `[...]`) and folders of them; TFDS
      folders, whose split `train` is taken, or their only one; mixtures.

  Raises:
    InputError: something is not there, or a mixture cannot be followed.
  """
  parts = []
  for name in data:
    if name.endswith((".yaml", ".yml")):
      parts += _read_mixture(name)
    else:
      parts += map(Part, _find_files(name))
  return parts


def list_files(data: Sequence[str]) -> list[str]:
  """Every file that the pool follows from, mixtures included."""
  mixtures = [name for name in data if name.endswith((".yaml", ".yml"))]
  return mixtures + [part.file for part in expand(data)]


def choose(
  part: Part, count: Callable[[], int], seed: int
) -> Int[np.ndarray, " n"] | None:
  """Places of the rows that are taken, ascending; None for all.

  Args:
    part: the file and its strategy.
    count: gives the file's rows.
    seed: of what is taken at random.
  """
  if part.take == "all":
    return None
  kind, number, percent = _STRATEGY.fullmatch(part.take).groups()
  if kind == "first" and not percent:
    return np.arange(int(number))
  rows = count()
  wanted = math.ceil(rows * int(number) / 100) if percent else int(number)
  wanted = min(wanted, rows)
  if kind == "first":
    return np.arange(wanted)
  if kind == "end":
    return np.arange(rows - wanted, rows)
  name = zlib.crc32(os.path.basename(part.file).encode())
  chosen = np.random.default_rng((seed, name)).choice(rows, wanted, replace=False)
  return np.sort(chosen)


def _find_files(name: str) -> list[str]:
  if storage.is_folder(name):
    return _list_folder(name)
  if re.search(r"[*?\[]", name) and not os.path.exists(name):
    if not (found := storage.find(name)):
      raise InputError(f"{name}: no file fits this pattern.")
    return found
  return [name]


def _list_folder(folder: str) -> list[str]:
  """A folder's files: of one TFDS split, or those with a known suffix."""
  files = storage.find(os.path.join(folder, "*"))
  splits: dict[str, list[str]] = {}
  for file in files:
    if match := _RECORDS.fullmatch(os.path.basename(file)):
      splits.setdefault(match["split"].rpartition("-")[2], []).append(file)
  if splits:
    if "train" not in splits and len(splits) > 1:
      raise InputError(
        f"{folder}: holds the splits {', '.join(splits)}; give the files of one."
      )
    return splits.get("train") or next(iter(splits.values()))
  found = [file for file in files if file.endswith(_SUFFIXES)]
  if not found:
    raise InputError(
      f"{folder}: a folder without {', '.join(_SUFFIXES)} or ArrayRecord files."
    )
  return found


def _read_mixture(path: str) -> Iterator[Part]:
  import yaml

  try:
    with storage.open_binary(path) as file:
      data = file.read(_MOST_YAML + 1)
  except FileNotFoundError as error:
    raise InputError(f"{path}: the pool file is not there.") from error
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
  try:
    if len(data) > _MOST_YAML or b"&" in data:
      raise ValueError("too long, or with anchors")
    tree: Any = yaml.safe_load(data)
    entries = tree["datasets"]
    if not isinstance(entries, list) or not entries:
      raise ValueError("datasets is not a list")
  except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise InputError(
      f"{path}: not a mixture ({str(error).splitlines()[0][:200]}); expected datasets:"
      " a list of json_path and sampling_strategy."
    ) from error
  for number, entry in enumerate(entries):
    name = entry.get("json_path") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name:
      raise InputError(f"{path}: data set {number} names no json_path.")
    take = str(entry.get("sampling_strategy") or "all")
    if take != "all" and not _STRATEGY.fullmatch(take):
      raise InputError(
        f"{path}: data set {number}: sampling_strategy {take!r}; allowed are all,"
        " first:N, end:N and random:N, where N may end in %."
      )
    if name.endswith((".yaml", ".yml")):
      raise InputError(f"{path}: data set {number} is itself a mixture.")
    for file in _find_files(_resolve(path, name)):
      yield Part(file, take)


def _resolve(mixture: str, name: str) -> str:
  """Beside the mixture, or else as it stands."""
  beside = os.path.join(os.path.dirname(mixture), name)
  if os.path.isabs(name) or storage.is_remote(name):
    return name
  if storage.is_remote(mixture) or os.path.exists(beside) or re.search(r"[*?\[]", name):
    return beside
  return name
