"""Expands `pool.data`, which names files, folders, patterns and mixtures, to files.

A mixture is a YAML file in LLaVA-NeXT's format:

    datasets:
      - json_path: llava.json
        sampling_strategy: random:20%

with the strategies all, first:N, end:N and random:N, where N may end in %. Unlike in
LLaVA-NeXT, the sampled rows keep the order of their file, and random sampling is
determined by the run's seed.
"""

import math
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mllm_selector_jax import storage
from mllm_selector_jax.data.files import folders, splits
from mllm_selector_jax.data.formats.pool_file import explain
from mllm_selector_jax.types import InputError

_STRATEGY = re.compile(r"(first|end|random):(\d+|\d*\.\d+(?=%))(%?)")
_BRACES = re.compile(r"(.*?)\{([^{}]*)\}(.*)", re.DOTALL)
_PATTERN = re.compile(r"[*?\[]")
_MOST_YAML = 1 << 20  # bytes
_MOST_NAMES = 10_000  # of files that one name with braces may expand to
# The most rows of "first" for which the rows of the file need not be counted.
UNCOUNTED = 1 << 20


class PoolPart(NamedTuple):
  """A file of the pool, and the strategy by which its rows are sampled.

  Attributes:
    file: the path.
    take: the sampling strategy, such as "all" or "random:20%"; see `choose`.
  """

  file: str
  take: str = "all"


class PoolFiles(NamedTuple):
  """The files that `pool.data` expands to.

  Attributes:
    parts: the files that are read, in order.
    left_out: files of the given folders that are not read, because they are of other
      splits or of unknown formats.
  """

  parts: list[PoolPart]
  left_out: list[str]


def find_files(data: Sequence[str], wanted_splits: str = splits.DEFAULT) -> PoolFiles:
  """Returns the files that `pool.data` names, and those that were left out.

  Args:
    data: paths of files, folders and mixtures, and patterns (`*`, `?`, `[...]`,
      `{a,b}`) of files and folders. A file that is named itself is read whatever its
      split.
    wanted_splits: the splits that are taken from folders, separated by commas, or
      "all".

  Raises:
    InputError: a file does not exist, or a mixture cannot be read.
  """
  split_names = splits.parse(wanted_splits)
  pool_files = PoolFiles([], [])
  for name in data:
    entries = _read_mixture(name) if is_mixture(name) else [(name, "all")]
    for path, take in entries:
      try:
        files, left_out = _find(path, split_names)
      except OSError as error:  # a bucket that cannot be reached, among others
        raise explain(path, error) from error
      pool_files.parts.extend(PoolPart(file, take) for file in files)
      pool_files.left_out.extend(left_out)
  return pool_files


def expand(data: Sequence[str], wanted_splits: str = splits.DEFAULT) -> list[PoolPart]:
  """Returns the files that `pool.data` names, in order; see `find_files`."""
  return find_files(data, wanted_splits).parts


def is_mixture(name: str) -> bool:
  """Returns whether a path names a mixture, by its suffix."""
  return name.lower().endswith((".yaml", ".yml"))


def list_files(data: Sequence[str], wanted_splits: str = splits.DEFAULT) -> list[str]:
  """Lists every file that determines the pool, including the mixtures."""
  mixtures = [name for name in data if is_mixture(name)]
  return mixtures + [part.file for part in expand(data, wanted_splits)]


def choose(
  part: PoolPart, count: Callable[[], int], seed: int
) -> Int[np.ndarray, " n"] | None:
  """Samples the rows of a file by its strategy.

  Args:
    part: the file and its strategy.
    count: returns the number of rows of the file.
    seed: the seed of random sampling.

  Returns:
    The positions in the file of the sampled rows, ascending; None for all rows.
  """
  if part.take == "all":
    return None
  match = _STRATEGY.fullmatch(part.take)
  assert match is not None, part.take  # checked when the mixture was read
  kind, number, percent = match.groups()
  if kind == "first" and not percent and int(number) <= UNCOUNTED:
    return np.arange(int(number))
  rows = count()
  # Exact arithmetic: in floating point, 0.1 % of 1,000 rows may round up to two rows.
  kept = math.ceil(Fraction(number) * rows / 100) if percent else int(number)
  kept = min(kept, rows)
  if kind == "first":
    return np.arange(kept)
  if kind == "end":
    return np.arange(rows - kept, rows)
  name_hash = zlib.crc32(os.path.basename(part.file).encode())
  chosen = np.random.default_rng((seed, name_hash)).choice(rows, kept, replace=False)
  return np.sort(chosen)


def _find(name: str, split_names: tuple[str, ...]) -> folders.Listing:
  """Returns the files that a path, a pattern or a folder stands for."""
  if storage.is_folder(name):
    return folders.list_folder(name, split_names)
  listing = folders.Listing([], [])
  for pattern in _expand_braces(name):
    for path in _match(pattern):
      inside = folders.Listing([path], [])
      if path != name and storage.is_folder(path):
        inside = folders.list_folder(path, split_names)
      listing.files.extend(inside.files)
      listing.left_out.extend(inside.left_out)
  return listing


def _match(name: str) -> list[str]:
  if not _PATTERN.search(name) or storage.exists(name):
    return [name]
  if not (paths := storage.find(name)):
    raise InputError(f"{name}: no file matches this pattern.")
  return paths


def _expand_braces(name: str) -> list[str]:
  """Expands `{a,b}.json` to `a.json` and `b.json`, unless it exists by that name."""
  names = [name]
  while match := next(
    (m for n in names if (m := _BRACES.fullmatch(n)) and not storage.exists(n)), None
  ):
    index = names.index(match[0])
    expanded = [f"{match[1]}{word.strip()}{match[3]}" for word in match[2].split(",")]
    names[index : index + 1] = expanded
    if len(names) > _MOST_NAMES:
      raise InputError(f"{name[:200]}: expands to more than {_MOST_NAMES:,} files.")
  return names


def _read_mixture(path: str) -> Iterator[tuple[str, str]]:
  """Yields the paths that a mixture names, each with its sampling strategy."""
  import yaml

  try:
    with storage.open_binary(path) as file:
      data = file.read(_MOST_YAML + 1)
  except FileNotFoundError as error:
    raise InputError(f"{path}: the pool file does not exist.") from error
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
  try:
    if len(data) > _MOST_YAML:
      raise ValueError(f"more than {_MOST_YAML:,} bytes")
    # A few anchors can expand to billions of nodes.
    if any(getattr(event, "anchor", None) for event in yaml.parse(data)):
      raise ValueError("it has anchors or aliases, which are not followed")
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
    take = str(entry.get("sampling_strategy") or "all").replace(" ", "").strip("\"'")
    if take != "all" and not _STRATEGY.fullmatch(take):
      raise InputError(
        f"{path}: data set {number}: sampling_strategy {take!r}; allowed are all,"
        " first:N, end:N and random:N, where N may end in % and then have decimals."
      )
    if is_mixture(name):
      raise InputError(f"{path}: data set {number} is itself a mixture.")
    yield _resolve(path, name), take


def _resolve(mixture: str, name: str) -> str:
  """Resolves a path of a mixture.

  A relative path is looked up beside the mixture first, and then in the working
  directory.
  """
  beside = os.path.join(os.path.dirname(mixture), name)
  if os.path.isabs(name) or storage.is_remote(name):
    return name
  if storage.is_remote(mixture) or _PATTERN.search(name):
    return beside
  is_here = any(map(storage.exists, _expand_braces(name)))
  is_beside = any(map(storage.exists, _expand_braces(beside)))
  return name if is_here and not is_beside else beside
