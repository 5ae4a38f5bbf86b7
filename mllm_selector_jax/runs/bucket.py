"""Keeps a workdir in a bucket (gs://...), and copies it to and from a local folder.

Libraries that read models, tables and arrays need local files, so every process works
in a scratch folder of its own. A complete artifact is copied to the bucket, its marker
last. Processes fetch what the bucket has and their folder lacks, when they start and
when they have waited for another one. Checkpoints are written to and read from the
bucket directly, and parts of a scoring are copied while it runs. Only what is in the
bucket counts as made.
"""

import concurrent.futures
import contextlib
import fnmatch
import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from mllm_selector_jax.runs import artifacts, peers, remote_calls
from mllm_selector_jax.runs.artifacts import MARKER, RECIPE, UNHASHED, Artifact, Recipe
from mllm_selector_jax.runs.lease import Lease
from mllm_selector_jax.types import InputError, RunError

PARTS = "passes"  # subfolder of a partial folder that an interrupted scoring reuses
EVERY = 60.0  # seconds between two copies of the parts that were written
_THREADS = 16  # number of concurrent copies


class Bucket:
  """A workdir in a bucket.

  Args:
    url: the URL of the workdir.

  Attributes:
    folder: the local folder in which the stages work.
  """

  def __init__(self, url: str):
    # Listings must not be cached, so that files of other processes are seen.
    with contextlib.suppress(ImportError):  # epath says what is missing
      import fsspec

      fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    self._remote = epath.Path(url)
    self._lease = Lease(self._remote)
    name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    if number := peers.number_and_count()[0]:
      name += f"-{number}"
    self.folder = Path(tempfile.gettempdir()) / "mllm-selector" / name

  def open(self, say: Callable[[str], None]) -> None:
    """Makes the local folder the same as the bucket.

    Args:
      say: shows a message.

    Raises:
      InputError: the bucket cannot be reached, or another run works in it.
    """
    self.folder.mkdir(parents=True, exist_ok=True)
    try:
      warning = self._lease.take(say) if peers.is_first_process() else ""
      names = set(self._list(self._remote))
    except InputError:
      raise
    except ImportError as error:
      raise InputError(
        f"--workdir={self._remote}: {error} (pip install 'mllm_selector_jax[gcs]')."
      ) from error
    except Exception as error:  # cloud clients have errors of their own
      raise InputError(
        f"--workdir={self._remote}: cannot be listed ({type(error).__name__}:"
        f" {str(error)[:200]}). Check that the bucket exists and can be written to."
      ) from error
    for marker in sorted(self.folder.rglob(f"*{MARKER}")):
      if str(marker.relative_to(self.folder)) not in names:
        self._remove(marker)
    for name in sorted(name for name in names if name.endswith(MARKER)):
      self._fetch_artifact(name)
    folders = {name.split("/" + RECIPE)[0] for name in names if name.endswith(RECIPE)}
    for partial in self.folder.rglob("*.partial"):
      recipe = partial / RECIPE
      is_remote = str(partial.relative_to(self.folder)) in folders
      text = recipe.read_text() if recipe.exists() else None
      if not is_remote or text != self._at(recipe).read_text():
        shutil.rmtree(partial)
    self._fetch(
      name
      for name in names
      if name.endswith(f"/{RECIPE}")
      or f".partial/{PARTS}/" in name
      or name in ("log.txt", "times.json")
      or "logs" in name.split("/")
    )
    self._fetch_pointers(names)
    if warning:
      say(warning)

  def _fetch_pointers(self, names: set[str]) -> None:
    """Makes the pointers to arms the same as those in the bucket."""
    for path in self.folder.glob("**/arms/*.json"):
      if str(path.relative_to(self.folder)) not in names:
        path.unlink()
    paths = map(Path, names)
    self._fetch(str(p) for p in paths if (p.parent.name, p.suffix) == ("arms", ".json"))

  def send_file(self, path: Path) -> None:
    self._send([path])

  def read_time(self, path: Path) -> float:
    """Returns when a file was copied to the bucket, in seconds since 1970."""
    return float(self._at(path).stat().mtime)

  def remove(self, path: Path) -> None:
    """Removes a file, or a folder with its markers first, given as a local path."""
    remote = self._at(path)
    with remote_calls.explained(self._remote):
      if remote.is_dir():
        for name in [n for n in self._list(remote) if n.endswith(MARKER)]:
          remote_calls.delete(remote / name)
      remote_calls.delete(remote)

  def check(self) -> None:
    """Checks that no other run has taken the workdir over.

    Raises:
      RunError: another run has.
    """
    self._lease.check()

  def close(self) -> None:
    """Copies the logs, unless another run has taken the workdir over."""
    self.check()
    self._copy_logs()

  def leave(self) -> None:
    """Lets other runs have the workdir."""
    self._lease.release()

  def checkpoints(self, partial: Path) -> epath.Path:
    """Returns the folder of the checkpoints of an artifact that is being made."""
    return self._at(partial) / UNHASHED

  def move(self, source: Path, target: Path) -> None:
    """Moves a partial folder in the bucket, with its checkpoints.

    Args:
      source: the folder, as a local path.
      target: the new path, as a local path.

    Raises:
      RunError: the bucket cannot be reached.
    """
    remote_source, remote_target = self._at(source), self._at(target)
    with remote_calls.explained(self._remote):
      remote_calls.delete(remote_target)
      checkpoints = self._list(remote_source / UNHASHED)
      names = [f"{UNHASHED}/{name}" for name in checkpoints]
      for name in [*names, *self._list(remote_source)]:
        (remote_target / name).parent.mkdir(parents=True, exist_ok=True)
        (remote_source / name).copy(remote_target / name)
      remote_calls.delete(remote_source)

  @contextlib.contextmanager
  def making(self, artifact: Artifact, recipe: Recipe) -> Iterator[None]:
    """Copies the parts of an artifact to the bucket while the block makes them.

    The first process calls this. A partial folder of another recipe in the bucket is
    deleted.
    """
    self.check()
    remote, text = self._at(artifact.partial), recipe.to_text()
    remote_recipe = remote / RECIPE
    with remote_calls.explained(self._remote):
      is_same = remote_recipe.exists() and remote_recipe.read_text() == text
      if not is_same:
        remote_calls.delete(remote)
      remote.mkdir(parents=True, exist_ok=True)
      remote_calls.write_text(remote_recipe, text)
    ended = threading.Event()
    sent: set[Path] = set()

    def send():
      # The JSON file of a part holds its hashes, and is copied after the others.
      new = {p for p in artifact.partial.glob(f"{PARTS}/**/*") if p.is_file()} - sent
      new = [path for path in new if not path.name.startswith(".")]
      self._send(sorted(new, key=lambda path: path.suffix == ".json"))
      sent.update(new)

    def watch():
      while not ended.wait(EVERY):
        with contextlib.suppress(RunError):  # the next copy, or the last, will raise it
          send()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
      yield
    finally:
      ended.set()
      thread.join()
      if artifact.partial.exists():
        send()
      self._copy_logs()

  def put(self, artifact: Artifact) -> None:
    """Copies a complete artifact to the bucket, its marker last.

    Raises:
      RunError: the bucket cannot be reached, or another run has taken it over.
    """
    self.check()
    with remote_calls.explained(self._remote):
      self._put(artifact)

  def _put(self, artifact: Artifact) -> None:
    marker = self._at(artifact.marker)
    remote_calls.delete(marker)
    remote, partial = self._at(artifact.path), self._at(artifact.partial)
    if not artifact.files:
      remote_calls.delete(remote)
    made = artifact.provenance()
    self._send(artifact.root / name for name in made["outputs"])
    if (partial / UNHASHED).exists():
      for name in self._list(partial / UNHASHED):
        target = remote / UNHASHED / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (partial / UNHASHED / name).copy(target)
    remote_calls.write_text(marker, artifact.marker.read_text())
    for folder in [partial, *self._list_aside(artifact)]:
      remote_calls.delete(folder)

  def _list_aside(self, artifact: Artifact) -> list[epath.Path]:
    """Lists the partial folders in the bucket that are kept for other recipes."""
    parent = self._at(artifact.path.parent)
    pattern = f"{artifact.path.name}.????????.partial"
    return [path for path in parent.iterdir() if fnmatch.fnmatch(path.name, pattern)]

  def get(self, artifact: Artifact) -> None:
    """Fetches an artifact that another process made."""
    self._fetch_artifact(str(artifact.marker.relative_to(self.folder)))

  def _at(self, path: Path) -> epath.Path:
    """Returns the path in the bucket of a path in the local folder."""
    return self._remote / str(path.relative_to(self.folder))

  def _list(self, folder: epath.Path) -> Iterator[str]:
    """Yields the names of all files below a folder, except those of checkpoints."""
    pending = [folder] if folder.exists() else []
    while pending:
      for path in pending.pop().iterdir():
        if path.is_dir():
          if path.name != UNHASHED:
            pending.append(path)
        else:
          yield str(path.relative_to(folder))

  def _fetch_artifact(self, name: str) -> None:
    """Fetches an artifact by the name of its marker, unless it is here already."""
    marker, text = self.folder / name, (self._remote / name).read_text()
    if marker.exists() and marker.read_text() == text:
      return
    if marker.exists():
      self._remove(marker)
    try:
      made: dict[str, Any] = json.loads(text)
    except ValueError:  # an incomplete marker counts as none
      return
    start = name.rpartition("/")[0]
    try:
      self._fetch(f"{start}/{output}".lstrip("/") for output in made["outputs"])
    except RunError as error:
      if isinstance(error.__cause__, FileNotFoundError):
        return  # the artifact is incomplete, and is made again
      raise
    artifacts.write_text(marker, text)

  def _remove(self, marker: Path) -> None:
    """Deletes a local artifact, so that it no longer counts as made."""
    if marker.name == MARKER:
      shutil.rmtree(marker.parent)
    else:
      marker.unlink()

  def _fetch(self, names: Iterable[str]) -> None:
    def fetch(name: str) -> None:
      path = self.folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      with (self._remote / name).open("rb") as source:
        temporary = path.with_name(f".{path.name}.writing")
        with open(temporary, "wb") as target:
          shutil.copyfileobj(source, target, 1 << 24)
        temporary.replace(path)

    self._run_threads(fetch, names)

  def _send(self, paths: Iterable[Path]) -> None:
    def send(path: Path) -> None:
      remote_calls.upload(path, self._at(path))

    self.check()
    self._run_threads(send, paths)

  def _run_threads(
    self, function: Callable[[Any], None], values: Iterable[Any]
  ) -> None:
    """Calls a function for each value, in several threads."""
    with (
      remote_calls.explained(self._remote),
      concurrent.futures.ThreadPoolExecutor(_THREADS) as pool,
    ):
      for _ in pool.map(function, values):
        pass

  def _copy_logs(self) -> None:
    paths = [self.folder / "log.txt", self.folder / "times.json"]
    paths += self.folder.rglob("logs/**/*")
    with contextlib.suppress(RunError):  # a log must not end a run
      self._send(path for path in paths if path.is_file())
