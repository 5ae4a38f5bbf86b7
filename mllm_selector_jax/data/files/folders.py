"""Lists the files of a folder that belong to the wanted splits.

The layouts of Hugging Face Hub snapshots, `datasets.save_to_disk` and TFDS are
understood, and subfolders are searched.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mllm_selector_jax import storage
from mllm_selector_jax.data import formats
from mllm_selector_jax.data.files import compressed, splits
from mllm_selector_jax.types import InputError

# Files that describe a data set and hold no records.
_METADATA = (
  "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json",
  "features.json", "config.json",
)  # fmt: skip
# Data files of formats that the package does not read; they are reported.
_UNREAD = re.compile(
  r".+\.(csv|tsv|zip|7z|rar|xz|pkl|pickle|npz|lance|mds|xlsx|tfrecord.*)",
  re.IGNORECASE,
)
_CACHE = re.compile(r"(cache-.+\.arrow|.+\.lock)")
_MOST_JSON = 1 << 24  # bytes read of a state.json


class Listing(NamedTuple):
  """The files of a folder that are read, and the other data files in it."""

  files: list[str]
  left_out: list[str]


def list_folder(
  folder: str, wanted_splits: tuple[str, ...] = (splits.DEFAULT,)
) -> Listing:
  """Lists the files of the wanted splits, or all files of a folder without splits.

  Args:
    folder: the folder, which is searched with its subfolders. Links are followed.
    wanted_splits: names of splits; an empty tuple takes every file.

  Raises:
    InputError: there is no file of a known format, or none of the wanted splits.
  """
  names = list(storage.walk(folder))
  unread = [name for name in names if _UNREAD.fullmatch(os.path.basename(name))]
  readable = list(_drop_metadata(folder, names))
  if not readable:
    raise InputError(
      f"{folder}: a folder without {', '.join(_list_suffixes())} or ArrayRecord files"
      + (f"; it holds {_name_some(unread)}." if unread else ".")
    )
  taken = _take_splits(folder, readable, wanted_splits)
  left_out = sorted(set(readable) - set(taken)) + unread
  return Listing(
    [os.path.join(folder, name) for name in taken],
    [os.path.join(folder, name) for name in left_out],
  )


def _list_suffixes() -> list[str]:
  return [suffix for form in formats.list_formats() for suffix in form.suffixes]


def _drop_metadata(folder: str, names: list[str]) -> Iterator[str]:
  """Yields the files of known formats, without those that only describe others."""
  saved_files = {
    os.path.dirname(name): _read_state(os.path.join(folder, name))
    for name in names
    if os.path.basename(name) == "state.json"
  }
  suffixes = tuple(_list_suffixes())
  for name in names:
    parent, base = os.path.split(name)
    if base in _METADATA or _CACHE.fullmatch(base):
      continue
    data_files = saved_files.get(parent)
    if data_files is not None and base not in data_files:
      continue
    plain = compressed.plain_name(base).lower()
    if plain.endswith(suffixes) or ".array_record" in base:
      yield name


def _read_state(path: str) -> list[str] | None:
  """Reads the data files that the `state.json` of a saved data set names.

  Returns:
    None if the file is not the state of a saved data set.

  Raises:
    InputError: the data set has an index, so that not all rows of its files count.
  """
  try:
    with storage.open_binary(path) as file:
      state = json.loads(file.read(_MOST_JSON))
    files = [entry["filename"] for entry in state["_data_files"]]
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    return None
  if state.get("_indices_data_files"):
    raise InputError(
      f"{path}: a data set saved with an index of its rows, as old versions of"
      " datasets did. Load it and save it again: `flatten_indices` removes the index."
    )
  return [str(name) for name in files]


def _take_splits(
  folder: str, names: list[str], wanted_splits: tuple[str, ...]
) -> list[str]:
  """Returns the files of the wanted splits, or all files if there are no splits."""
  if not wanted_splits:
    return names
  split_of = {name: splits.find_split(name) for name in names}
  present = list(dict.fromkeys(split for _, split in split_of.values() if split))
  # Beside a wanted split, files without a split are not taken.
  with_wanted = {
    parent for parent, split in split_of.values() if split in wanted_splits
  }
  taken = [
    name
    for name, (parent, split) in split_of.items()
    if split in wanted_splits or (split is None and parent not in with_wanted)
  ]
  by_default = wanted_splits == (splits.DEFAULT,)
  if taken and (with_wanted or by_default or not present):
    return taken
  if len(present) == 1 and by_default:
    return names
  raise InputError(
    f"{folder}: holds the splits {', '.join(present)}, and none of"
    f" {', '.join(wanted_splits)}. Name the splits to read: --config.pool.splits="
    f"{present[0]} (several with commas, or all), or give the files themselves."
  )


def _name_some(names: Iterable[str], most: int = 3) -> str:
  names = list(names)
  more = f" and {len(names) - most:,} more" if len(names) > most else ""
  return ", ".join(names[:most]) + more
