"""One invocation: its config, workdir, console, devices and wish to stop."""

import contextlib
import copy
import dataclasses
import functools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mllm_selector_jax import plugins, storage
from mllm_selector_jax.runs import (
  agreement,
  artifacts,
  half_done,
  holder,
  interrupts,
  peers,
)
from mllm_selector_jax.runs.bucket import Bucket
from mllm_selector_jax.runs.console import Console
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.types import InputError, Stopped

if TYPE_CHECKING:
  import jax.sharding

SEEN = 5.0  # seconds after which what one host wrote to a shared volume is seen by all

# The settings that may name plug-ins.
PLUGGED = (
  *("pool.formats", "score.signals", "evaluate.metrics"),
  *("select.strategy", "select.bound", "select.search.bound"),
  *("compare.strategies", "compare.variants"),
)


@dataclasses.dataclass
class _Shared:
  """What a run and those made from it by `Run.at` have in common.

  Attributes:
    stop: whether a SIGTERM asked the run to save and leave.
    stage: the stage at hand, for messages.
    said: texts that are said once.
    known: what `once` has made, by key.
  """

  stop: bool = False
  stage: str = ""
  said: set[str] = dataclasses.field(default_factory=set)
  known: dict[Any, Any] = dataclasses.field(default_factory=dict)


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
    bucket: that the workdir is a copy of; None where it is a folder.
    devices: of the mesh; None for all that there are.
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
  bucket: Bucket | None = None
  devices: Sequence["jax.Device"] | None = None
  seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  _shared: _Shared = dataclasses.field(default_factory=_Shared)

  def at(
    self, workdir: Workdir | None = None, settings: dict[str, Any] | None = None
  ) -> "Run":
    """Gives the same run with other folders or other settings.

    Args:
      workdir: where artifacts lie; None for the same place.
      settings: values by key, as on the command line: `{"tune.batch": 8}`.
    """
    cfg = self.cfg
    if settings:
      cfg = copy.deepcopy(cfg)
      cfg.update_from_flattened_dict(settings)
    return dataclasses.replace(self, cfg=cfg, workdir=workdir or self.workdir)

  @property
  def stage(self) -> str:
    """The stage at hand, for messages."""
    return self._shared.stage

  def begin(self, stage: str) -> None:
    """Notes the stage at hand."""
    self._shared.stage = stage

  def stop(self) -> None:
    """Asks the stage at hand to save and leave (SIGTERM)."""
    self._shared.stop = True

  def stopped(self) -> bool:
    return self._shared.stop

  def say(self, text: str, once: bool = False) -> None:
    """Says it on the first process; with `once`, not if this run has said it."""
    if peers.is_first_process() and not (once and text in self._shared.said):
      self.console.say(text)
    if once:
      self._shared.said.add(text)

  def once(self, key: Any, make: Callable[[], Any]) -> Any:
    """What `make` gives, made once in a run for all that ask by this key."""
    known = self._shared.known
    if key not in known:
      known[key] = make()
    return known[key]

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
        if leave and self._shared.stop:
          raise Stopped(f"{title} after {done:,} {unit}s")

      yield checked

  def checkpoints(self, folder: Path) -> Any:
    """Where the checkpoints of what is made in that folder lie."""
    if self.bucket is not None:
      return self.bucket.checkpoints(folder)
    return folder / artifacts.UNHASHED

  @functools.cached_property
  def mesh(self) -> "jax.sharding.Mesh":
    """The devices, which are looked for when a command first asks for them."""
    from mllm_selector_jax import sharding  # imports jax, which not all commands need

    return sharding.make_mesh(**self.cfg.mesh.to_dict(), devices=self.devices)

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
    self.begin(recipe.stage)
    agreement.compare(self._describe(recipe), f"inputs of {name}")
    reasons = []
    if peers.is_first_process():
      reasons = artifact.why_stale(recipe) or ([again] if again else [])
    if not peers.agree(bool(reasons)):
      self.say(f"{recipe.stage}: {name} is unchanged, kept.")
      return False
    if peers.any_process(self._shared.stop):
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
    asked: other fields of `Run`: ids, arm, lists, out, devices.

  Raises:
    InputError: another process holds the workdir, or it cannot be written; or its
      bucket cannot be reached.
  """
  bucket = Bucket(workdir) if storage.is_remote(workdir) else None
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
    with plugins.trusting({key: _read_setting(cfg, key) for key in PLUGGED}):
      yield run
    if bucket and peers.is_first_process():
      bucket.close()
      run.say(f"All of it is in {workdir}.")


def _read_setting(cfg: Any, key: str) -> Any:
  for part in key.split("."):
    cfg = cfg[part]
  return plain(cfg)


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
