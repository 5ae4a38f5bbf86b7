"""A workdir in a bucket (gs://...): a folder here to work in, and what is whole there.

Libraries that read models, tables and arrays want files of this machine. So every
process works in a scratch folder of its own. An artifact that was made is copied into
the bucket, its marker last; whoever begins or waits fetches what the bucket has and
the folder lacks. Checkpoints go to and come from the bucket alone, and parts of a
scoring are copied as they are written. The bucket decides: nothing here counts that is
not there.
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

from mllm_selector_jax.runs import artifacts, holder, peers
from mllm_selector_jax.runs.artifacts import MARKER, RECIPE, UNHASHED, Artifact, Recipe
from mllm_selector_jax.types import InputError, RunError

PARTS = "passes"  # of a partial folder: what is gone on from
EVERY = 60.0  # seconds between copies of the parts that were written
_THREADS = 16


class Bucket:
  """The remote side of a workdir.

  Args:
    url: of the workdir.

  Attributes:
    folder: on this machine, where the stages work.
  """

  def __init__(self, url: str):
    # What another process wrote must be seen, so listings are not kept.
    with contextlib.suppress(ImportError):  # epath says what is missing
      import fsspec

      fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    self._remote = epath.Path(url)
    name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    if number := peers.place()[0]:
      name += f"-{number}"
    self.folder = Path(tempfile.gettempdir()) / "mllm-selector" / name

  def open(self, say: Callable[[str], None]) -> None:
    """Fetches what the bucket has; what it does not have is removed here.

    Raises:
      InputError: the bucket cannot be reached.
    """
    self.folder.mkdir(parents=True, exist_ok=True)
    try:
      names = set(self._list(self._remote))
      warning = self._note_holder(names)
    except ImportError as error:
      raise InputError(
        f"--workdir={self._remote}: {error} (pip install 'mllm_selector_jax[gcs]')."
      ) from error
    except Exception as error:  # cloud clients have errors of their own
      raise InputError(
        f"--workdir={self._remote}: cannot be listed ({type(error).__name__}:"
        f" {str(error)[:200]}). See whether the bucket is there and may be written to."
      ) from error
    for marker in sorted(self.folder.rglob(f"*{MARKER}")):
      if str(marker.relative_to(self.folder)) not in names:
        self._remove(marker)
    for name in sorted(name for name in names if name.endswith(MARKER)):
      self._fetch_artifact(name)
    folders = {name.split("/" + RECIPE)[0] for name in names if name.endswith(RECIPE)}
    for partial in self.folder.rglob("*.partial"):
      note, known = partial / RECIPE, str(partial.relative_to(self.folder)) in folders
      text = note.read_text() if note.exists() else None
      if not known or text != self._at(note).read_text():
        shutil.rmtree(partial)
    self._fetch(
      name
      for name in names
      if name.endswith(f"/{RECIPE}")
      or f".partial/{PARTS}/" in name
      or name in ("log.txt", "times.json")
      or "logs" in name.split("/")
    )
    if warning:
      say(warning)

  def close(self) -> None:
    """Copies the logs, and lets go of the workdir."""
    self._copy_logs()
    with contextlib.suppress(Exception):  # the next run is warned
      (self._remote / ".holder").unlink()

  def checkpoints(self, partial: Path) -> epath.Path:
    """Where the checkpoints of an artifact that is being made lie."""
    return self._at(partial) / UNHASHED

  def move(self, source: Path, target: Path) -> None:
    """Moves a partial folder with its checkpoints, given as places here.

    Raises:
      RunError: the bucket cannot be reached.
    """
    there, moved = self._at(source), self._at(target)
    with _explained(self._remote):
      if moved.exists():
        moved.rmtree()
      inside = there / UNHASHED
      names = [f"{UNHASHED}/{name}" for name in self._list(inside)]
      for name in [*names, *self._list(there)]:
        (moved / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).copy(moved / name)
      if there.exists():
        there.rmtree()

  @contextlib.contextmanager
  def making(self, artifact: Artifact, recipe: Recipe) -> Iterator[None]:
    """Around the making of an artifact in the first process: keeps its parts.

    What the bucket has of another recipe is removed.
    """
    there, text = self._at(artifact.partial), recipe.to_text()
    note = there / RECIPE
    with _explained(self._remote):
      if there.exists() and not (note.exists() and note.read_text() == text):
        there.rmtree()
      there.mkdir(parents=True, exist_ok=True)
      note.write_text(text)
    ended = threading.Event()
    sent: set[Path] = set()

    def send():
      # A part's note comes last, and has its hashes.
      new = {p for p in artifact.partial.glob(f"{PARTS}/**/*") if p.is_file()} - sent
      new = [path for path in new if not path.name.startswith(".")]
      self._send(sorted(new, key=lambda path: path.suffix == ".json"))
      sent.update(new)

    def watch():
      while not ended.wait(EVERY):
        with contextlib.suppress(RunError):  # the next time, or the end, tells
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
    """Copies an artifact that is whole here, its marker last.

    Raises:
      RunError: the bucket cannot be reached.
    """
    with _explained(self._remote):
      self._put(artifact)

  def _put(self, artifact: Artifact) -> None:
    marker = self._at(artifact.marker)
    if marker.exists():
      marker.unlink()
    there, partial = self._at(artifact.path), self._at(artifact.partial)
    if not artifact.files and there.exists():
      there.rmtree()
    made = artifact.provenance()
    self._send(artifact.root / name for name in made["outputs"])
    if (partial / UNHASHED).exists():
      for name in self._list(partial / UNHASHED):
        target = there / UNHASHED / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (partial / UNHASHED / name).copy(target)
    marker.write_text(artifact.marker.read_text())
    for folder in [partial, *self._list_aside(artifact)]:
      if folder.exists():
        folder.rmtree()

  def _list_aside(self, artifact: Artifact) -> list[epath.Path]:
    names = self._at(artifact.path.parent)
    pattern = f"{artifact.path.name}.????????.partial"
    return [path for path in names.iterdir() if fnmatch.fnmatch(path.name, pattern)]

  def get(self, artifact: Artifact) -> None:
    """Fetches an artifact that another process made."""
    self._fetch_artifact(str(artifact.marker.relative_to(self.folder)))

  def _at(self, path: Path) -> epath.Path:
    return self._remote / str(path.relative_to(self.folder))

  def _list(self, folder: epath.Path) -> Iterator[str]:
    """Names of all files below a folder, but those of checkpoints inside it."""
    waiting = [folder] if folder.exists() else []
    while waiting:
      for path in waiting.pop().iterdir():
        if path.is_dir():
          if path.name != UNHASHED:
            waiting.append(path)
        else:
          yield str(path.relative_to(folder))

  def _fetch_artifact(self, name: str) -> None:
    """Fetches an artifact by its marker, unless the same one is here."""
    here, text = self.folder / name, (self._remote / name).read_text()
    if here.exists() and here.read_text() == text:
      return
    if here.exists():
      self._remove(here)
    try:
      made: dict[str, Any] = json.loads(text)
    except ValueError:  # torn: as if there were none
      return
    start = name.rpartition("/")[0]
    try:
      self._fetch(f"{start}/{output}".lstrip("/") for output in made["outputs"])
    except RunError as error:
      if isinstance(error.__cause__, FileNotFoundError):
        return  # not whole; it is made again
      raise
    artifacts.write_text(here, text)

  def _remove(self, marker: Path) -> None:
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

    self._each(fetch, names)

  def _send(self, paths: Iterable[Path]) -> None:
    def send(path: Path) -> None:
      target = self._at(path)
      target.parent.mkdir(parents=True, exist_ok=True)
      with open(path, "rb") as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 24)

    self._each(send, paths)

  def _each(self, function: Callable[[Any], None], values: Iterable[Any]) -> None:
    with (
      _explained(self._remote),
      concurrent.futures.ThreadPoolExecutor(_THREADS) as pool,
    ):
      for _ in pool.map(function, values):
        pass

  def _copy_logs(self) -> None:
    paths = [self.folder / "log.txt", self.folder / "times.json"]
    paths += self.folder.rglob("logs/**/*")
    with contextlib.suppress(RunError):  # a log must not end a run
      self._send(path for path in paths if path.is_file())

  def _note_holder(self, names: set[str]) -> str:
    """Notes who works here; a warning where somebody seems to, "" elsewhere.

    A bucket cannot know whether a process lives, so a note is no lock.
    """
    if not peers.is_first_process():
      return ""
    note, warning = self._remote / ".holder", ""
    if ".holder" in names:
      warning = (
        f"Warning: {self._remote} was last held by {note.read_text()}, which did not"
        " let go: it was killed, or still runs. Two runs at once spoil each other."
      )
    note.write_text(holder.describe_process())
    return warning


@contextlib.contextmanager
def _explained(remote: epath.Path) -> Iterator[None]:
  try:
    yield
  except FileNotFoundError as error:
    raise RunError(f"{remote}: {error}; it was there when the run began.") from error
  except Exception as error:  # cloud clients have errors of their own
    raise RunError(
      f"{remote}: cannot be reached any more ({type(error).__name__}:"
      f" {str(error)[:200]}). The same command goes on from what is whole."
    ) from error
