"""What a stage leaves on disk: atomic, hashed, with provenance.

An artifact is made in `<name>.partial` beside its place. Its provenance is
written into it last and is its marker: without one nothing counts as made. The
old artifact stays until the new one is whole. Nothing is decided by file times.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mllm_selector_jax.types import InputError, RunError

FORMAT = 1  # raised when artifacts of an earlier version can no longer be read
MARKER = "provenance.json"
RECIPE = "recipe.json"  # of a folder in which one is being made
UNHASHED = "checkpoints"  # orbax's own; verified by orbax, not by our hashes
_PACKAGES = (
  "mllm_selector_jax jax jaxlib flax optax orbax-checkpoint grain transformers"
  " tokenizers safetensors pyarrow pillow numpy"
).split()


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Everything that an artifact follows from.

  Attributes:
    stage: the command that makes it.
    config: the stage's own section of the config.
    inputs: digests of what it reads, by name.
    seed: the run's rng seed.
  """

  stage: str
  config: dict[str, Any]
  inputs: dict[str, str]
  seed: int

  def to_json(self) -> dict[str, Any]:
    return {"format": FORMAT, **json.loads(json.dumps(dataclasses.asdict(self)))}

  def to_text(self) -> str:
    """What an artifact's partial folder is known by."""
    return json.dumps(self.to_json(), sort_keys=True)

  def differences(self, made: dict[str, Any]) -> list[str]:
    """What changed since the artifact with this provenance was made."""
    now, changed = self.to_json(), []
    if made.get("format") != FORMAT:
      changed.append(f"format {made.get('format')} -> {FORMAT}")
    old, new = flatten(made.get("config", {})), flatten(now["config"])
    for name in sorted(old.keys() | new.keys()):
      if old.get(name) != new.get(name):
        changed.append(f"{name} {_clip(old.get(name))} -> {_clip(new.get(name))}")
    old, new = made.get("inputs", {}), now["inputs"]
    changed += [f"{k} changed" for k in sorted(old | new) if old.get(k) != new.get(k)]
    if made.get("seed") != self.seed:
      changed.append(f"rng_seed {made.get('seed')} -> {self.seed}")
    return changed


@dataclasses.dataclass(frozen=True)
class Artifact:
  """A folder, or a few files of one folder, that one stage makes.

  Attributes:
    path: the folder; with `files`, the common stem of their marker.
    files: names of the files beside `path`; empty for a folder.
    stage: the command that makes it, for messages.
    bare: whether a folder's marker stands beside it, and not among what others read.
  """

  path: Path
  files: tuple[str, ...] = ()
  stage: str = ""
  bare: bool = False

  @property
  def root(self) -> Path:
    """The folder that the names of its outputs begin in."""
    return self.path.parent if self.files or self.bare else self.path

  @property
  def marker(self) -> Path:
    if self.files or self.bare:
      return self.path.with_name(f"{self.path.name}.{MARKER}")
    return self.path / MARKER

  @property
  def partial(self) -> Path:
    return self.path.with_name(f"{self.path.name}.partial")

  def aside(self, recipe: str) -> Path:
    """Where a partial folder of this recipe is kept while another one is made."""
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return self.path.with_name(f"{self.path.name}.{digest}.partial")

  def list_aside(self) -> list[Path]:
    """The partial folders that are kept."""
    return sorted(self.path.parent.glob(f"{self.path.name}.????????.partial"))

  def provenance(self) -> dict[str, Any] | None:
    """The provenance, or None where there is no whole artifact."""
    self._recover()
    try:
      return json.loads(self.marker.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
      return None

  def digest(self) -> str:
    """A hash of the contents: what later stages follow from."""
    made = self.provenance()
    if made is None:
      raise InputError(
        f"{self.path} is not there (whole): run `mllm-selector {self.stage}` with"
        " the same --config and --workdir first, or `run` for everything."
      )
    return made["digest"]

  def why_stale(self, recipe: Recipe) -> list[str]:
    """Reasons to make it (again); empty when it is current and intact."""
    made = self.provenance()
    if made is None:
      return ["not made yet"]
    if changed := recipe.differences(made):
      return changed
    for name, wanted in made["outputs"].items():
      path = self.root / name
      if not path.is_file():
        return [f"{name} is gone"]
      if hash_file(path) != wanted:
        return [f"{name} is damaged (its hash does not match)"]
    return []

  @contextlib.contextmanager
  def making(self, recipe: Recipe) -> Iterator[Path]:
    """Gives the folder to write into, and puts it in place when all is well.

    What an earlier, interrupted making with the same recipe left there is kept,
    for the stage to go on from; anything else there is removed. What is kept aside of
    others is removed when this one is whole.
    """
    wanted = recipe.to_text()
    note = self.partial / RECIPE
    if read_recipe(self.partial) != wanted:
      shutil.rmtree(self.partial, ignore_errors=True)
      self.partial.mkdir(parents=True)
      write_text(note, wanted)
    yield self.partial
    note.unlink()
    outputs = _hash_outputs(self.partial)
    if self.bare:
      outputs = {f"{self.path.name}/{name}": own for name, own in outputs.items()}
    provenance = {
      **recipe.to_json(),
      "packages": package_versions(),
      "outputs": outputs,
      "digest": hash_json(outputs),
    }
    text = json.dumps(provenance, indent=2, sort_keys=True) + "\n"
    if self.files:
      assert set(outputs) == set(self.files), (outputs, self.files)
      # The old marker no longer fits once a file is replaced: its hashes tell.
      for name in self.files:
        os.replace(self.partial / name, self.path.with_name(name))
      write_text(self.marker, text)
      shutil.rmtree(self.partial)
    else:
      write_text(self.partial / MARKER, text)
      self._swap()
    for folder in self.list_aside():
      shutil.rmtree(folder)

  def _swap(self):
    old = self.path.with_name(f"{self.path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if self.path.exists():
      os.replace(self.path, old)
    os.replace(self.partial, self.path)
    self._bare_folder()
    _sync_folder(self.path.parent)
    shutil.rmtree(old, ignore_errors=True)

  def _bare_folder(self):
    # Until here the old marker's hashes tell that the folder is another.
    if self.bare and (self.path / MARKER).exists():
      os.replace(self.path / MARKER, self.marker)

  def _recover(self):
    """Ends a swap that was cut off between its two renames."""
    if self.files:
      return
    if (self.partial / MARKER).exists():
      self._swap()
    old = self.path.with_name(f"{self.path.name}.old")
    if old.exists() and not self.path.exists():
      os.replace(old, self.path)
    shutil.rmtree(old, ignore_errors=True)
    self._bare_folder()


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is of a bucket (gs://...)."""
  return bool(re.match(r"\w+:/", os.fspath(path)))


def recover(workdir: Path) -> None:
  """Ends every swap of a folder in a workdir that was cut off."""
  for depth in ("", "*/", "*/*/"):
    for ending in ("partial", "old"):
      for path in workdir.glob(f"{depth}*.{ending}"):
        Artifact(path.with_suffix("")).provenance()


def write_bytes(path: Path, data: bytes) -> None:
  """Writes a file that is either whole or not there."""
  if is_remote(path):  # it appears when it is whole; there is no renaming
    path.write_bytes(data)
    return
  temporary = path.with_name(f".{path.name}.writing")
  try:
    with open(temporary, "wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except OSError as error:
    temporary.unlink(missing_ok=True)
    raise RunError(
      f"{path}: {len(data):,} bytes could not be written ({error.strerror})."
    ) from error


def write_text(path: Path, text: str) -> None:
  write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
  write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_table(path: Path, columns: Any) -> None:
  """Writes a pyarrow table as Parquet with page checksums, atomically."""
  import io

  import pyarrow.parquet as pq

  buffer = io.BytesIO()
  pq.write_table(columns, buffer, compression="zstd", write_page_checksum=True)
  write_bytes(path, buffer.getvalue())


def hash_file(path: Path) -> str:
  """SHA-256 of a file's bytes, in hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(value: Any) -> str:
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def hash_folder(folder: Path) -> str:
  """A hash of all files of a folder, by name: the identity of a base model."""
  return hash_json(_hash_outputs(folder))


def package_versions() -> dict[str, str]:
  versions = {}
  for name in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[name] = importlib.metadata.version(name)
  return versions


def _hash_outputs(folder: Path) -> dict[str, str]:
  outputs = {}
  for path in sorted(folder.rglob("*")):
    name = path.relative_to(folder)
    if path.is_file() and name.parts[0] != UNHASHED and str(name) != MARKER:
      outputs[str(name)] = hash_file(path)
  return outputs


def _clip(value: Any, most: int = 80) -> str:
  """A value for a message; a list of ids may be as long as the pool."""
  text = repr(value)
  return text if len(text) <= most else f"{text[: most - 4]} ..."


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """The leaves of a dict of dicts, by their dotted names."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat.update(flatten(value, f"{prefix}{name}."))
    else:
      flat[f"{prefix}{name}"] = value
  return flat


def read_recipe(partial: Path) -> str | None:
  """The recipe, as text, that a partial folder is made by; None without one."""
  try:
    return (partial / RECIPE).read_text()
  except OSError:
    return None


def _sync_folder(folder: Path) -> None:
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
