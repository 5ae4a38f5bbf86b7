"""Which split a file belongs to, and what it is called without it."""

import os
import re

from mllm_selector_jax.data import listing
from mllm_selector_jax.data.packed import plain_name
from mllm_selector_jax.types import InputError

DEFAULT = "train"
ALL = "all"
# What files and folders are called, and the split that is meant.
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
# Names that say nothing about what a file holds.
_EMPTY = re.compile(
  r"((data|default|part|shards?|partial|parquet|arrow|jsonl?|records?|snapshots"
  r"|files?)?[-_. ]?\d*|[0-9a-f]{40})",
  re.IGNORECASE,
)
_MOST_FOLDERS = 4  # above a file that may name it


def parse(value: str) -> tuple[str, ...]:
  """The splits that `pool.splits` names; none where all are meant.

  Raises:
    InputError: it names none.
  """
  names = listing.split_names(value)
  if not names:
    raise InputError(
      f"pool.splits={value!r}: name splits with commas (train,validation), or all."
    )
  return () if ALL in names else tuple(NAMES.get(name.lower(), name) for name in names)


def find_split(relative: str) -> tuple[str, str | None]:
  """The folder whose files are split, and the split of one of them.

  Args:
    relative: the file's path inside the folder that was given.

  Returns:
    The split's name is None for a file that is of none; the folder is its own then.
  """
  *folders, name = relative.split("/")
  if split := _split_of_name(name):
    return "/".join(folders), split
  for place in reversed(range(len(folders))):
    if split := NAMES.get(folders[place].lower()):
      return "/".join(folders[:place]), split
  return "/".join(folders), None


def name_file(path: str) -> str | None:
  """What a file's path says that it holds: its name, or that of a folder above it.

  Names of splits, shards and of no meaning (`data`, `default`) are passed over.
  """
  *folders, name = path.split("/")
  match = _RECORDS.fullmatch(name)
  stem = match["stem"] if match else os.path.splitext(plain_name(name))[0]
  for place in (stem, *folders[: -_MOST_FOLDERS - 1 : -1]):
    if found := _strip(place):
      return found
  return None


def _split_of_name(name: str) -> str | None:
  if match := _RECORDS.fullmatch(name):
    # TFDS names every file DATASET-SPLIT, and a split may have any name.
    found = match["stem"].rpartition("-")
    return NAMES.get(found[2].lower(), found[2]) if found[1] else None
  words = _list_words(os.path.splitext(plain_name(name))[0])
  return next((NAMES[word] for word in (words[0], words[-1]) if word in NAMES), None)


def _list_words(stem: str) -> list[str]:
  words = [word.lower() for word in _WORDS.split(stem) if word and not word.isdecimal()]
  while len(words) > 1 and words[-1] == "of":  # of -00000-of-00001
    words.pop()
  return words or [""]


def _strip(name: str) -> str:
  """A name without its shard's number and its split; "" if nothing is left."""
  name = name.removeprefix("datasets--").rpartition("--")[
    2
  ]  # as the hub's cache has it
  name = _SHARD.sub("", name.removeprefix("partial-"))
  first, last = re.match(r"[A-Za-z]*", name)[0], re.search(r"[A-Za-z]*$", name)[0]
  if first.lower() in NAMES:
    name = name[len(first) :]
  elif last.lower() in NAMES:
    name = name[: -len(last)]
  name = name.strip("-_. ")
  return "" if _EMPTY.fullmatch(name) or name in (".", "..") else name
