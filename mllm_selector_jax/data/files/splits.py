"""Recognises the split that a file belongs to, and the data set that it names."""

import os
import re
from typing import Any

from mllm_selector_jax import listing
from mllm_selector_jax.data.files.compressed import plain_name
from mllm_selector_jax.types import InputError

DEFAULT = "train"
ALL = "all"
# Names of splits as files and folders spell them, and the split that each means.
NAMES = {
  "train": "train",
  "training": "train",
  "validation": "validation",
  "valid": "validation",
  "val": "validation",
  "dev": "validation",
  "test": "test",
  "testing": "test",
  "eval": "eval",
  "evaluation": "eval",
}
_RECORDS = re.compile(r"(?P<stem>.+)\.array_record(-\d+-of-\d+)?")
_SHARD = re.compile(r"[-_.](\d+[-_]of[-_]\d+(-[0-9a-f]{6,})?|0\d*)$")
_WORDS = re.compile(r"[-_. ]+|(?<=[a-z])(?=\d)", re.IGNORECASE)
# Generic names, which say nothing about what a file holds.
_EMPTY = re.compile(
  r"((data|default|part|shards?|partial|parquet|arrow|jsonl?|records?|snapshots"
  r"|files?)?[-_. ]?\d*|[0-9a-f]{40})",
  re.IGNORECASE,
)
_MOST_FOLDERS = 4  # parent folders whose names are tried for a file


def parse(value: Any) -> tuple[str, ...]:
  """Parses `pool.splits`.

  Returns:
    The names of the splits; an empty tuple stands for all splits.

  Raises:
    InputError: the value names no split.
  """
  names = listing.split_names(value)
  if not names:
    raise InputError(
      f"pool.splits={value!r}: name splits with commas (train,validation), or all."
    )
  return () if ALL in names else tuple(NAMES.get(name.lower(), name) for name in names)


def find_split(relative: str) -> tuple[str, str | None]:
  """Finds the split of a file, by its own name or that of a parent folder.

  Args:
    relative: the file's path, relative to the folder that was given.

  Returns:
    The folder that is divided into splits, and the name of the file's split. For a
    file without a split, the folder that holds it and None.
  """
  *folders, name = relative.split("/")
  if split := _split_of_name(name):
    return "/".join(folders), split
  for depth in reversed(range(len(folders))):
    if split := NAMES.get(folders[depth].lower()):
      return "/".join(folders[:depth]), split
  return "/".join(folders), None


def name_file(path: str) -> str | None:
  """Returns the data set that a path names: the file's name, or a parent folder's.

  Names of splits and shards, and generic names (`data`, `default`), are skipped. None
  is returned if no other name is left.
  """
  *folders, name = path.split("/")
  match = _RECORDS.fullmatch(name)
  stem = match["stem"] if match else os.path.splitext(plain_name(name))[0]
  for candidate in (stem, *folders[: -_MOST_FOLDERS - 1 : -1]):
    if stripped := _strip(candidate):
      return stripped
  return None


def _split_of_name(name: str) -> str | None:
  if match := _RECORDS.fullmatch(name):
    # TFDS names every file DATASET-SPLIT, and a split may have any name.
    _, dash, split = match["stem"].rpartition("-")
    return NAMES.get(split.lower(), split) if dash else None
  words = _list_words(os.path.splitext(plain_name(name))[0])
  return next((NAMES[word] for word in (words[0], words[-1]) if word in NAMES), None)


def _list_words(stem: str) -> list[str]:
  words = [word.lower() for word in _WORDS.split(stem) if word and not word.isdecimal()]
  while len(words) > 1 and words[-1] == "of":  # left over from -00000-of-00001
    words.pop()
  return words or [""]


def _strip(name: str) -> str:
  """Returns a name without shard number and split; "" if it is a generic one."""
  # Folders of the hub's cache are named datasets--OWNER--NAME.
  name = name.removeprefix("datasets--").rpartition("--")[2]
  name = _SHARD.sub("", name.removeprefix("partial-"))
  first, last = re.findall(r"^[A-Za-z]*", name)[0], re.findall(r"[A-Za-z]*$", name)[0]
  if first.lower() in NAMES:
    name = name[len(first) :]
  elif last.lower() in NAMES:
    name = name[: -len(last)]
  name = name.strip("-_. ")
  return "" if _EMPTY.fullmatch(name) or name in (".", "..") else name
