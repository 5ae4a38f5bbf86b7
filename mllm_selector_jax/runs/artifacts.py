"""Makes artifacts, the results of stages on disk: atomic, hashed, with provenance.

An artifact is made in the folder `<name>.partial` and then renamed. Its provenance is
written last and marks it as complete; without it, nothing counts as made. The old
artifact stays until the new one is complete. File times are never used.
"""

import contextlib
import dataclasses
import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from mllm_selector_jax import storage
from mllm_selector_jax.runs import own_code, peers
from mllm_selector_jax.types import InputError, RunError

FORMAT = 1  # raised when artifacts of an earlier version can no longer be read
MARKER = "provenance.json"
RECIPE = "recipe.json"  # in a partial folder: what the artifact is made from
UNHASHED = "checkpoints"  # a folder of orbax, which `checkpoint` verifies by itself
# What network file systems call a deleted file while a process has it open.
_DELETED = (".nfs", ".fuse_hidden")
_PACKAGES = (
  "mllm_selector_jax jax jaxlib flax optax orbax-checkpoint grain transformers"
  " tokenizers safetensors pyarrow pillow numpy"
).split()


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Everything that determines an artifact.

  Attributes:
    stage: the command that makes it.
    config: the stage's section of the config.
    inputs: digests of what the stage reads, by name.
    seed: the run's rng seed.
  """

  stage: str
  config: dict[str, Any]
  inputs: dict[str, str]
  seed: int

  def to_json(self) -> dict[str, Any]:
    return {"format": FORMAT, **json.loads(json.dumps(dataclasses.asdict(self)))}

  def to_text(self) -> str:
    """Returns the recipe as text, by which partial folders are compared."""
    return json.dumps(self.to_json(), sort_keys=True)

  def differences(self, made: dict[str, Any]) -> list[str]:
    """Lists what changed since an artifact was made.

    Args:
      made: the provenance or the recipe of that artifact, as JSON.
    """
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
    path: the folder; with `files`, a path beside them that the marker is named after.
    files: names of the files; empty if the artifact is a folder.
    stage: the command that makes it, for messages.
    bare: whether the marker of a folder is beside it, because other programs read the
      folder.
  """

  path: Path
  files: tuple[str, ...] = ()
  stage: str = ""
  bare: bool = False

  @property
  def root(self) -> Path:
    """The folder that the names of the outputs are relative to."""
    return self.path.parent if self.files or self.bare else self.path

  @property
  def marker(self) -> Path:
    """The file with the provenance, which is written last."""
    if self.files or self.bare:
      return self.path.with_name(f"{self.path.name}.{MARKER}")
    return self.path / MARKER

  @property
  def partial(self) -> Path:
    """The folder in which the artifact is made."""
    return self.path.with_name(f"{self.path.name}.partial")

  def aside(self, recipe: str) -> Path:
    """Returns where the partial folder of a recipe is kept while another is used."""
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    return self.path.with_name(f"{self.path.name}.{digest}.partial")

  def list_aside(self) -> list[Path]:
    """Lists the partial folders that are kept for other recipes."""
    return sorted(self.path.parent.glob(f"{self.path.name}.????????.partial"))

  def provenance(self) -> dict[str, Any] | None:
    """Reads the provenance; returns None if there is no complete artifact."""
    self._recover()
    try:
      return json.loads(self.marker.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
      return None

  def digest(self) -> str:
    """Returns the hash of the contents, which later stages depend on.

    Raises:
      InputError: there is no complete artifact.
    """
    made = self.provenance()
    if made is None:
      raise InputError(
        f"{self.path} is not there (complete): run `mllm-selector {self.stage}` with"
        " the same --config and --workdir first, or `run` for everything."
      )
    return made["digest"]

  def why_stale(self, recipe: Recipe) -> list[str]:
    """Lists reasons to make the artifact again; empty if it is current and intact."""
    made = self.provenance()
    if made is None:
      return ["not made yet"]
    if changed := recipe.differences(made):
      return changed
    for name, expected_hash in made["outputs"].items():
      path = self.root / name
      if not path.is_file():
        return [f"{name} is gone"]
      if storage.hash_file(path) != expected_hash:
        return [f"{name} is damaged (its hash does not match)"]
    return []

  @contextlib.contextmanager
  def making(self, recipe: Recipe) -> Iterator[Path]:
    """Yields the folder to write into, and puts it in place if the block succeeds.

    If an earlier attempt with the same recipe was interrupted, its files are still in
    the folder, so that the stage can resume from them. Files of another recipe are
    deleted, and so are the partial folders kept aside, once the artifact is complete.
    """
    recipe_text = recipe.to_text()
    recipe_path = self.partial / RECIPE
    if read_recipe(self.partial) != recipe_text:
      shutil.rmtree(self.partial, ignore_errors=True)
      self.partial.mkdir(parents=True)
      write_text(recipe_path, recipe_text)
    yield self.partial
    recipe_path.unlink()
    outputs = _hash_outputs(self.partial)
    if self.bare:
      outputs = {f"{self.path.name}/{name}": digest for name, digest in outputs.items()}
    provenance = {
      **recipe.to_json(),
      "packages": package_versions(),
      "code": own_code.describe_code(),
      "outputs": outputs,
      "digest": hash_json(outputs),
    }
    text = json.dumps(provenance, indent=2, sort_keys=True) + "\n"
    if self.files:
      assert set(outputs) == set(self.files), (outputs, self.files)
      # As soon as a file is replaced, the hashes in the old marker no longer match.
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
    """Replaces the artifact's folder by the complete partial folder."""
    old = self.path.with_name(f"{self.path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if self.path.exists():
      os.replace(self.path, old)
    os.replace(self.partial, self.path)
    self._bare_folder()
    _sync_folder(self.path.parent)
    shutil.rmtree(old, ignore_errors=True)

  def _bare_folder(self):
    # Until here, the hashes in the old marker do not match the new folder.
    if self.bare and (self.path / MARKER).exists():
      os.replace(self.path / MARKER, self.marker)

  def _recover(self):
    """Finishes a swap that was interrupted between its two renames.

    Only the first process may: others may see a shared volume as it was before.
    """
    if self.files or not peers.is_first_process():
      return
    if (self.partial / MARKER).exists():
      self._swap()
    old = self.path.with_name(f"{self.path.name}.old")
    if old.exists() and not self.path.exists():
      os.replace(old, self.path)
    shutil.rmtree(old, ignore_errors=True)
    self._bare_folder()


def recover(workdir: Path) -> None:
  """Finishes every interrupted swap of an artifact's folder in a workdir."""
  for depth in ("", "*/", "*/*/"):
    for ending in ("partial", "old"):
      for path in workdir.glob(f"{depth}*.{ending}"):
        Artifact(path.with_suffix("")).provenance()


def write_bytes(path: PurePath, data: bytes) -> None:
  """Writes a file atomically.

  Args:
    path: the path; an `epath.Path` for a file in a bucket.
    data: the contents.

  Raises:
    RunError: a local file could not be written.
  """
  if storage.is_remote(path):  # a bucket shows a file only when it is complete
    path.write_bytes(data)
    return
  try:
    with storage.writing(path) as partial:
      partial.write_bytes(data)
  except OSError as error:
    raise RunError(
      f"{path}: {len(data):,} bytes could not be written ({error.strerror})."
    ) from error


def write_text(path: PurePath, text: str) -> None:
  write_bytes(path, text.encode())


def write_json(path: PurePath, value: Any) -> None:
  write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_table(path: PurePath, columns: Any) -> None:
  """Writes a pyarrow table as Parquet with page checksums, atomically."""
  import io

  import pyarrow.parquet as pq

  buffer = io.BytesIO()
  pq.write_table(columns, buffer, compression="zstd", write_page_checksum=True)
  write_bytes(path, buffer.getvalue())


def hash_json(value: Any) -> str:
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def hash_folder(folder: Path) -> str:
  """Hashes names and contents of all files of a folder, such as a base model."""
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
    if name.parts[0] == UNHASHED or str(name) == MARKER:
      continue
    if path.is_file() and not path.name.startswith(_DELETED):
      outputs[str(name)] = storage.hash_file(path)
  return outputs


def _clip(value: Any, most: int = 80) -> str:
  """Formats a value for a message, clipped, since a list of ids may be very long."""
  text = repr(value)
  return text if len(text) <= most else f"{text[: most - 4]} ..."


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  """Flattens nested dicts to one dict with dotted names."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat.update(flatten(value, f"{prefix}{name}."))
    else:
      flat[f"{prefix}{name}"] = value
  return flat


def read_recipe(partial: Path) -> str | None:
  """Reads the recipe of a partial folder as text; returns None if there is none."""
  try:
    return (partial / RECIPE).read_text()
  except OSError:
    return None


def _sync_folder(folder: Path) -> None:
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:  # some network file systems cannot write folders out
    if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
      raise
  finally:
    os.close(descriptor)
