"""Says which arm a name such as `main` stands for, and keeps that on disk.

An arm has a folder in `arms/`. A pointer is the file `arms/<name>.json`, which names
the folder of another arm. It is written atomically, and buckets can hold it, too. On
a local file system, the link `arms/<name>` leads people and scripts to the same folder;
this package never reads it.
"""

import contextlib
import json
import os
import re
from pathlib import Path

from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.types import InputError

# Names that every file system, shell and bucket takes, and that hide no other file.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.%=+-]*")
_MOST = 120  # characters of a name
_UNFINISHED = (".partial", ".old")


def check_name(name: str) -> str:
  """Returns a name, if it can be that of an arm.

  Raises:
    InputError: it is no name of a folder in `arms/`.
  """
  if len(name) > _MOST or not NAME.fullmatch(name):
    raise InputError(
      f"{name!r} cannot be the name of an arm: allowed are letters, digits and _.%=+-,"
      f" {_MOST} at most. `mllm-selector arms` lists the arms."
    )
  return name


def clean_name(text: str) -> str:
  """Replaces what a name cannot have by `_`."""
  return re.sub(r"[^A-Za-z0-9_.%=+-]+", "_", text).lstrip(".%=+-")


def pointer_path(arms: Path, name: str) -> Path:
  return arms / f"{name}.json"


def read(arms: Path, name: str) -> str | None:
  """Reads the name of the arm that a pointer names; returns None if there is none.

  Args:
    arms: the folder `arms/` of a workdir.
    name: the name of the pointer.

  Raises:
    InputError: the file is damaged.
  """
  path = pointer_path(arms, name)
  try:
    text = path.read_text()
  except (FileNotFoundError, NotADirectoryError):
    return None
  try:
    return check_name(json.loads(text)["arm"])
  except (ValueError, KeyError, TypeError, InputError) as error:
    raise InputError(
      f"{path} does not name an arm; delete it, and run `mllm-selector select` to have"
      " it written again."
    ) from error


def write(arms: Path, name: str, target: str, link: bool) -> str:
  """Lets a pointer name an arm.

  Args:
    arms: the folder `arms/` of a workdir.
    name: the name of the pointer.
    target: the name of the arm.
    link: whether to lead the link of the same name there, too.

  Returns:
    A warning if the link could not be made; otherwise "".
  """
  arms.mkdir(parents=True, exist_ok=True)
  if read_or_none(arms, name) != target:
    artifacts.write_json(pointer_path(arms, name), {"arm": target})
  return _lead(arms / name, target) if link else ""


def read_or_none(arms: Path, name: str) -> str | None:
  """Reads a pointer as `read` does; a damaged one counts as none."""
  with contextlib.suppress(InputError):
    return read(arms, name)
  return None


def remove(arms: Path, name: str) -> None:
  """Removes a pointer and its link; the arm stays."""
  pointer_path(arms, name).unlink(missing_ok=True)
  if (arms / name).is_symlink():
    (arms / name).unlink()


def list_pointers(arms: Path) -> dict[str, str]:
  """Lists the arm that each pointer names, by the pointer's name."""
  names = sorted(path.stem for path in arms.glob("*.json"))
  pairs = ((name, read_or_none(arms, name)) for name in names)
  return {name: target for name, target in pairs if target is not None}


def list_arms(arms: Path) -> list[str]:
  """Lists the names of the arms' folders, without links.

  A folder whose name a pointer has is left out, because it cannot be reached: it is a
  copy that a program made which follows links.
  """
  pointers = list_pointers(arms)
  return sorted(
    path.name
    for path in arms.glob("*")
    if path.is_dir()
    and not path.is_symlink()
    and path.suffix not in _UNFINISHED
    and not path.name.startswith(".")
    and pointers.get(path.name, path.name) == path.name
  )


def _lead(link: Path, target: str) -> str:
  """Makes a link to a folder beside it, or leads an old one there, atomically."""
  if link.is_symlink() and os.readlink(link) == target:
    return ""
  if link.name == target:
    return ""  # in a workdir of an older version
  if link.exists() and not link.is_symlink():
    return (
      f"{link} is a folder, although it should be a link to {target}; read"
      f" {link.with_name(target)}, or delete the folder and run the command again."
    )
  new = link.with_name(f".{link.name}.link")
  try:
    new.unlink(missing_ok=True)
    new.symlink_to(target, target_is_directory=True)
    os.replace(new, link)
  except OSError as error:
    return (
      f"{link} could not be made a link to {target} ({error.strerror}); read"
      f" {link.with_name(target)} instead."
    )
  return ""
