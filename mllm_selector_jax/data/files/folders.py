"""Which files of a folder are the pool: those of its training split, in depth.

Folders are read as the hub's snapshots, `datasets.save_to_disk` and TFDS lay them out.
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

# Files that describe a data set; none of them is one.
_METADATA = (
  "dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json",
  "features.json", "config.json",
)  # fmt: skip
# What a reader of ours would be expected for, and is not there.
_UNREAD = re.compile(
  r".+\.(csv|tsv|zip|7z|rar|xz|pkl|pickle|npz|lance|mds|xlsx|tfrecord.*)",
  re.IGNORECASE,
)
_CACHE = re.compile(r"(cache-.+\.arrow|.+\.lock)")
_MOST_JSON = 1 << 24  # bytes of a state.json


class Listing(NamedTuple):
  """The files that are taken, and those that could have been."""

  files: list[str]
  left_out: list[str]


def list_folder(folder: str, wanted: tuple[str, ...] = (splits.DEFAULT,)) -> Listing:
  """A folder's files: of the wanted splits, or all where there are none.

  Args:
    folder: its files, also those in folders inside, follow links.
    wanted: splits; none takes all.

  Raises:
    InputError: there is no file of a known format, or none of the wanted splits.
  """
  every = list(storage.walk(folder))
  unread = [name for name in every if _UNREAD.fullmatch(os.path.basename(name))]
  found = list(_drop_metadata(folder, every))
  if not found:
    raise InputError(
      f"{folder}: a folder without {', '.join(_list_suffixes())} or ArrayRecord files"
      + (f"; it holds {_name_some(unread)}." if unread else ".")
    )
  taken = _take(folder, found, wanted)
  left = sorted(set(found) - set(taken)) + unread
  return Listing(*([os.path.join(folder, name) for name in n] for n in (taken, left)))


def _list_suffixes() -> list[str]:
  return [suffix for each in formats.list_formats() for suffix in each.suffixes]


def _drop_metadata(folder: str, names: list[str]) -> Iterator[str]:
  """The files of known formats that are no description of others."""
  saved = {
    os.path.dirname(name): _read_state(os.path.join(folder, name))
    for name in names
    if os.path.basename(name) == "state.json"
  }
  suffixes = tuple(_list_suffixes())
  for name in names:
    place, base = os.path.split(name)
    if base in _METADATA or _CACHE.fullmatch(base):
      continue
    listed = saved.get(place)
    if listed is not None and base not in listed:
      continue
    plain = compressed.plain_name(base).lower()
    if plain.endswith(suffixes) or ".array_record" in base:
      yield name


def _read_state(path: str) -> list[str] | None:
  """The data files of a saved data set; None if this is another file.

  Raises:
    InputError: only some of their rows are the data set's.
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


def _take(folder: str, names: list[str], wanted: tuple[str, ...]) -> list[str]:
  """The files of the wanted splits; a folder without any split is taken whole."""
  if not wanted:
    return names
  kinds = {name: splits.find_split(name) for name in names}
  there = list(dict.fromkeys(split for _, split in kinds.values() if split))
  # A folder in which a wanted split lies has nothing else that is wanted.
  with_wanted = {place for place, split in kinds.values() if split in wanted}
  taken = [
    name
    for name, (place, split) in kinds.items()
    if split in wanted or (split is None and place not in with_wanted)
  ]
  by_default = wanted == (splits.DEFAULT,)
  if taken and (with_wanted or by_default or not there):
    return taken
  if len(there) == 1 and by_default:
    return names
  raise InputError(
    f"{folder}: holds the splits {', '.join(there)}, and none of"
    f" {', '.join(wanted)}. Name those that are meant: --config.pool.splits="
    f"{there[0]} (several with commas, or all), or give the files themselves."
  )


def _name_some(names: Iterable[str], most: int = 3) -> str:
  names = list(names)
  more = f" and {len(names) - most:,} more" if len(names) > most else ""
  return ", ".join(names[:most]) + more
