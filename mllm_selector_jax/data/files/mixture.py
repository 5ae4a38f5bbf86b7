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
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mllm_selector_jax import storage
from mllm_selector_jax.data.files import folders, splits
from mllm_selector_jax.types import InputError

_STRATEGY = re.compile(r"(first|end|random):(\d+|\d*\.\d+(?=%))(%?)")
_BRACES = re.compile(r"(.*?)\{([^{}]*)\}(.*)", re.DOTALL)
_PATTERN = re.compile(r"[*?\[]")
_MOST_YAML = 1 << 20  # bytes
_MOST_NAMES = 10_000  # that braces stand for


class Part(NamedTuple):
  """A file of the pool, and which of its rows are taken: see `choose`."""

  file: str
  take: str = "all"


class Files(NamedTuple):
  """What `pool.data` comes to.

  Attributes:
    parts: the files that are taken, in order.
    left_out: files of folders that were given, of other splits or not readable.
  """

  parts: list[Part]
  left_out: list[str]


def find_files(data: Sequence[str], wanted: str = splits.DEFAULT) -> Files:
  """The files that are meant, and those that were passed over.

  Args:
    data: files of any format, whatever their split; patterns (`*`, `?`, `[...]`,
      `{a,b}`) of files and folders; folders; mixtures.
    wanted: the splits that are taken of folders, with commas, or "all".

  Raises:
    InputError: something is not there, or a mixture cannot be followed.
  """
  names = splits.parse(wanted)
  found = Files([], [])
  for name in data:
    entries = _read_mixture(name) if is_mixture(name) else [(name, "all")]
    for path, take in entries:
      files, left = _find(path, names)
      found.parts.extend(Part(file, take) for file in files)
      found.left_out.extend(left)
  return found


def expand(data: Sequence[str], wanted: str = splits.DEFAULT) -> list[Part]:
  """The files that are meant, in order: see `find_files`."""
  return find_files(data, wanted).parts


def is_mixture(name: str) -> bool:
  return name.lower().endswith((".yaml", ".yml"))


def list_files(data: Sequence[str], wanted: str = splits.DEFAULT) -> list[str]:
  """Every file that the pool follows from, mixtures included."""
  mixtures = [name for name in data if is_mixture(name)]
  return mixtures + [part.file for part in expand(data, wanted)]


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
  match = _STRATEGY.fullmatch(part.take)
  assert match is not None, part.take  # refused where the mixture was read
  kind, number, percent = match.groups()
  if kind == "first" and not percent:
    return np.arange(int(number))
  rows = count()
  # A fraction: 0.1 % of 1,000 rows is one row, not two.
  wanted = math.ceil(Fraction(number) * rows / 100) if percent else int(number)
  wanted = min(wanted, rows)
  if kind == "first":
    return np.arange(wanted)
  if kind == "end":
    return np.arange(rows - wanted, rows)
  name = zlib.crc32(os.path.basename(part.file).encode())
  chosen = np.random.default_rng((seed, name)).choice(rows, wanted, replace=False)
  return np.sort(chosen)


def _find(name: str, wanted: tuple[str, ...]) -> folders.Listing:
  """The files that a path, a pattern or a folder stands for."""
  if storage.is_folder(name):
    return folders.list_folder(name, wanted)
  listing = folders.Listing([], [])
  for pattern in _expand_braces(name):
    for path in _match(pattern):
      inside = folders.Listing([path], [])
      if path != name and storage.is_folder(path):
        inside = folders.list_folder(path, wanted)
      listing.files.extend(inside.files)
      listing.left_out.extend(inside.left_out)
  return listing


def _match(name: str) -> list[str]:
  if not _PATTERN.search(name) or storage.exists(name):
    return [name]
  if not (found := storage.find(name)):
    raise InputError(f"{name}: no file fits this pattern.")
  return found


def _expand_braces(name: str) -> list[str]:
  """`{a,b}.json` is `a.json` and `b.json`, unless it is there by that name."""
  names = [name]
  while match := next(
    (m for n in names if (m := _BRACES.fullmatch(n)) and not storage.exists(n)), None
  ):
    place = names.index(match[0])
    each = [f"{match[1]}{word.strip()}{match[3]}" for word in match[2].split(",")]
    names[place : place + 1] = each
    if len(names) > _MOST_NAMES:
      raise InputError(f"{name[:200]}: stands for more than {_MOST_NAMES:,} files.")
  return names


def _read_mixture(path: str) -> Iterator[tuple[str, str]]:
  """The paths that a mixture names, each with its strategy."""
  import yaml

  try:
    with storage.open_binary(path) as file:
      data = file.read(_MOST_YAML + 1)
  except FileNotFoundError as error:
    raise InputError(f"{path}: the pool file is not there.") from error
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
  try:
    if len(data) > _MOST_YAML:
      raise ValueError(f"more than {_MOST_YAML:,} bytes")
    # A few anchors can stand for billions of nodes.
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
  """Beside the mixture, or else as it stands."""
  beside = os.path.join(os.path.dirname(mixture), name)
  if os.path.isabs(name) or storage.is_remote(name):
    return name
  if storage.is_remote(mixture) or _PATTERN.search(name):
    return beside
  there = any(map(storage.exists, _expand_braces(name)))
  return (
    beside if not there or any(map(storage.exists, _expand_braces(beside))) else name
  )
