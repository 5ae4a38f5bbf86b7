"""One invocation: its config, workdir, console, devices and wish to stop."""

import contextlib
import dataclasses
import functools
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from mllm_selector_jax import artifacts, interrupts, peers, sharding
from mllm_selector_jax.stages import agreement, half_done, holder
from mllm_selector_jax.stages.bucket import Bucket
from mllm_selector_jax.stages.console import Console
from mllm_selector_jax.stages.workdir import Workdir
from mllm_selector_jax.types import InputError, Stopped

SEEN = 5.0  # seconds after which what one host wrote to a shared volume is seen by all


@dataclasses.dataclass
class Run:
  """What every stage is given.

  Attributes:
    cfg: the locked config.
    workdir: where artifacts lie.
    console: for people.
    force: take a pool whose files changed.
    ids: what `explain` is asked about, as `references` reads it.
    arm: whose selection `explain` and `export-selection` are about; None where none
      was named.
    lists: files of ids that `measure` is asked about.
    out: where it writes its figures; empty for nowhere.
    stage: the stage at hand, for messages.
    bucket: that the workdir is a copy of; None where it is a folder.
    seconds: what `make` took by artifact, `<name>.partial` where it was cut off.
  """

  cfg: Any
  workdir: Workdir
  console: Console
  force: bool = False
  ids: tuple[str, ...] = ()
  arm: str | None = None
  lists: tuple[str, ...] = ()
  out: str = ""
  stage: str = ""
  bucket: Bucket | None = None
  seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  _stop: bool = False
  _said: set[str] = dataclasses.field(default_factory=set)
  _known: dict[Any, Any] = dataclasses.field(default_factory=dict)

  def stop(self) -> None:
    """Asks the stage at hand to save and leave (SIGTERM)."""
    self._stop = True

  def stopped(self) -> bool:
    return self._stop

  def say(self, text: str, once: bool = False) -> None:
    """Says it on the first process; with `once`, not if this run has said it."""
    if peers.is_first_process() and not (once and text in self._said):
      self.console.say(text)
    if once:
      self._said.add(text)

  def once(self, key: Any, make: Callable[[], Any]) -> Any:
    """What `make` gives, made once in a run for all that ask by this key."""
    if key not in self._known:
      self._known[key] = make()
    return self._known[key]

  @contextlib.contextmanager
  def progress(
    self, title: str, unit: str = "row", leave: bool = True
  ) -> Iterator[Callable[[int, int | None], None]]:
    """Progress of one stage; with `leave`, a SIGTERM ends it at the next update."""
    first = peers.is_first_process()
    shown = self.console.progress(title, unit) if first else _show_nothing()
    with shown as update, interrupts.pace() as note:

      def checked(done: int, total: int | None) -> None:
        note()
        update(done, total)
        if leave and self._stop:
          raise Stopped(f"{title} after {done:,} {unit}s")

      yield checked

  def checkpoints(self, folder: Path) -> Any:
    """Where the checkpoints of what is made in that folder lie."""
    if self.bucket is not None:
      return self.bucket.checkpoints(folder)
    return folder / artifacts.UNHASHED

  @functools.cached_property
  def mesh(self) -> Mesh:
    return sharding.make_mesh(**self.cfg.mesh.to_dict())

  def recipe(self, stage: str, config: Any, inputs: dict[str, str]) -> artifacts.Recipe:
    return artifacts.Recipe(stage, plain(config), inputs, self.cfg.rng_seed)

  def make(
    self,
    artifact: artifacts.Artifact,
    recipe: artifacts.Recipe,
    build: Callable[[Path], Any],
    again: str = "",
    together: bool = False,
  ) -> bool:
    """Makes an artifact unless it is current; says which, and why.

    Args:
      artifact: where.
      recipe: what it follows from.
      build: writes it into the folder that it is given.
      again: a reason to make it whether it is current or not.
      together: whether every process builds, on all devices; otherwise the first
        one does, and the others wait.

    Returns:
      Whether it was made.
    """
    name = self.workdir.name(artifact)
    self.stage = recipe.stage
    agreement.compare(self._describe(recipe), f"inputs of {name}")
    reasons = []
    if peers.is_first_process():
      reasons = artifact.why_stale(recipe) or ([again] if again else [])
    if not peers.agree(bool(reasons)):
      self.say(f"{recipe.stage}: {name} is unchanged, kept.")
      return False
    if peers.any_process(self._stop):
      raise Stopped(f"before {name}")
    new = reasons == ["not made yet"]
    why = "" if new else f" again: {'; '.join(reasons[:4])}"
    self.say(f"{recipe.stage}: making {name}{why}")
    if peers.is_first_process():
      half_done.keep_others(self, artifact, recipe)
    start = time.monotonic()
    taken = f"{name}.partial"
    try:
      with _making(artifact, recipe, self.bucket) as folder:
        if together or peers.is_first_process():
          build(folder)
      taken = name
    finally:
      self.seconds[taken] = time.monotonic() - start
    self.say(f"{recipe.stage}: {name} done in {self.seconds[name]:.1f} s")
    return True

  def _describe(self, recipe: artifacts.Recipe) -> dict[str, str]:
    """A recipe as `agreement` compares it; each process has its folder of a bucket."""
    config = artifacts.flatten(recipe.to_json()["config"])
    named = {f"the setting {key}": repr(value) for key, value in config.items()}
    inputs = {f"the hash of {key}": value[:16] for key, value in recipe.inputs.items()}
    folder = str(self.workdir.top or self.workdir.path)
    return {k: v.replace(folder, "--workdir") for k, v in {**named, **inputs}.items()}


@contextlib.contextmanager
def _making(
  artifact: artifacts.Artifact, recipe: artifacts.Recipe, bucket: Bucket | None
) -> Iterator[Path]:
  """`artifact.making` in the first process; the others find its folder there."""
  name, first = f"{recipe.stage} {artifact.path.name}", peers.is_first_process()
  if first:
    with artifact.making(recipe) as folder:
      kept = bucket.making(artifact, recipe) if bucket else contextlib.nullcontext()
      with kept:
        peers.meet(f"{name} begins")
        yield folder
    if bucket:
      bucket.put(artifact)
  else:
    peers.meet(f"{name} begins")
    yield artifact.partial
  peers.meet(f"{name} is whole")
  if bucket and not first:
    bucket.get(artifact)


@contextlib.contextmanager
def _show_nothing() -> Iterator[Callable[[int, int | None], None]]:
  yield lambda done, total: None


def plain(config: Any) -> Any:
  """A config section as JSON has it."""
  if hasattr(config, "to_dict"):
    config = config.to_dict()
  if isinstance(config, dict):
    return {key: plain(value) for key, value in config.items()}
  if isinstance(config, tuple | list):
    return [plain(value) for value in config]
  return config


@contextlib.contextmanager
def open_run(
  cfg: Any, workdir: str, force: bool = False, **asked: Any
) -> Iterator[Run]:
  """A run that holds its workdir, for all processes, until it ends.

  Args:
    cfg: the locked config.
    workdir: where artifacts lie.
    force: take a pool whose files changed.
    asked: what a command is asked about, see `Run`: ids, arm, lists, out.

  Raises:
    InputError: another process holds the workdir, or it cannot be written; or its
      bucket cannot be reached.
  """
  bucket = Bucket(workdir) if artifacts.is_remote(workdir) else None
  place = Workdir(bucket.folder if bucket else Path(workdir).absolute())
  with holder.lock(place.path) if _writes(bucket) else contextlib.nullcontext():
    run = Run(cfg, place, Console(place.log), force, bucket=bucket, **asked)
    if bucket:
      bucket.open(run.say)
    if not bucket:
      _check_shared(place.path)
    if peers.is_first_process():
      artifacts.recover(place.path)  # before others look
    peers.meet("the workdir is open")
    yield run
    if bucket and peers.is_first_process():
      bucket.close()
      run.say(f"All of it is in {workdir}.")


def _check_shared(folder: Path) -> None:
  """Refuses a workdir that is not the same folder in all processes."""
  number, count = peers.place()
  if count == 1:
    return
  path = folder / ".meeting"
  if number == 0:
    artifacts.write_text(path, uuid.uuid4().hex)
  wanted = peers.exchange(path.read_text() if number == 0 else "")[0]

  deadline = time.monotonic() + SEEN
  while not path.exists() or path.read_text() != wanted:
    if time.monotonic() > deadline:
      raise InputError(
        f"{folder} is not the folder that process 0 writes to. Give a --workdir on a"
        " volume that all processes share, or in a bucket."
      )
    time.sleep(0.1)
  peers.exchange("seen")
  if number == 0:
    path.unlink()


def _writes(bucket: Bucket | None) -> bool:
  """Whether this process has a folder to write to."""
  return peers.is_first_process() or bucket is not None
