"""Keeps what compiling a step told, so that the same step is not compiled again.

One JSON file a program, in the user's cache folder, named by a hash of all that decides
it: the step, the devices, the compilers' versions, their flags and this package's code.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

from mllm_selector_jax import storage
from mllm_selector_jax.runs import own_code

COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda12-pjrt", "jax-cuda13-pjrt")


def find_folder() -> Path:
  """Return the folder of the kept programs, by the XDG rules; it need not exist."""
  base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  return Path(base) / "mllm_selector_jax" / "programs"


def hash_program(identity: dict[str, Any]) -> str:
  """Hash what decides a program.

  Args:
    identity: the step and its devices, as values of JSON; others by their `repr`.
  """
  whole = {
    **identity,
    "compilers": {name: _version(name) for name in COMPILERS},
    "flags": [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")],
    "code": own_code.hash_code(),
  }
  text = json.dumps(whole, sort_keys=True, default=repr)
  return hashlib.sha256(text.encode()).hexdigest()


def read(key: str) -> dict[str, Any] | None:
  """Return what is kept of a program; None if nothing is, or it cannot be read."""
  try:
    found = json.loads((find_folder() / f"{key}.json").read_text())
  except (OSError, ValueError):
    return None
  return found if isinstance(found, dict) else None


def write(key: str, values: dict[str, Any]) -> None:
  """Keep what compiling a program told, where the folder can be written to."""
  path = find_folder() / f"{key}.json"
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage.writing(path) as partial:
      partial.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
  except OSError:
    return  # a cache is not needed


def describe_devices(devices: Any) -> dict[str, Any]:
  """Describe the devices of a mesh, for `hash_program`.

  Args:
    devices: an array of jax's devices, one axis for each of the mesh.
  """
  flat = list(devices.flat)
  return {
    "kind": flat[0].device_kind,
    "platform": flat[0].platform,
    "places": [(d.process_index, getattr(d, "coords", None), d.id) for d in flat],
  }


def describe_dataclass(value: Any) -> dict[str, Any]:
  """Describe an instance of a dataclass by its fields, for `hash_program`."""
  return {"class": type(value).__name__, **dataclasses.asdict(value)}


@functools.cache
def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None
