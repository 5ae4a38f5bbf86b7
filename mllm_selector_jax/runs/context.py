"""Defines `Run`, one invocation: config, workdir, console, devices, request to stop."""

import contextlib
import copy
import dataclasses
import functools
import time
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
  shared_volume,
)
from mllm_selector_jax.runs.bucket import Bucket
from mllm_selector_jax.runs.console import Console
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.types import Stopped

if TYPE_CHECKING:
  import jax.sharding

PLUGGED = (  # the settings that may name plug-ins
  *("pool.formats", "score.signals", "evaluate.metrics"),
  *("select.strategy", "select.search.strategy"),
  *("select.bound", "select.search.bound"),
  *("compare.strategies", "compare.variants"),
)


@dataclasses.dataclass
class _Shared:
  """The state that a run shares with those made from it by `Run.at`.

  Attributes:
    stop: whether a SIGTERM asked the run to save and leave.
    stage: the current stage, for messages.
    said: texts that are said only once.
    known: values that `once` has made, by key.
  """

  stop: bool = False
  stage: str = ""
  said: set[str] = dataclasses.field(default_factory=set)
  known: dict[Any, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Run:
  """One invocation, which is passed to every stage.

  Attributes:
    cfg: the locked config.
    workdir: the folders of the artifacts.
    console: shows messages and progress.
    force: whether to accept a pool whose files have changed.
    ids: the rows that `explain` is asked about, as `inputs/references.py` reads them.
    arm: the arm of `--arm`; None if not named.
    lists: the files of ids that `measure` is asked about.
    out: the file to which `measure` writes its figures; "" for none.
    bucket: the bucket of which the workdir is a copy; None if it is a local folder.
    devices: the devices of the mesh; None for all.
    seconds: the seconds that `make` took, by artifact; `<name>.partial` if it was
      interrupted.
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
    """Returns the same run with other folders or other settings.

    Args:
      workdir: the folders of the artifacts; None to keep them.
      settings: values by key, as on the command line: `{"tune.batch": 8}`.
    """
    cfg = self.cfg
    if settings:
      cfg = copy.deepcopy(cfg)
      cfg.update_from_flattened_dict(settings)
    return dataclasses.replace(self, cfg=cfg, workdir=workdir or self.workdir)

  @property
  def stage(self) -> str:
    """The current stage, for messages."""
    return self._shared.stage

  def begin(self, stage: str) -> None:
    """Notes the current stage."""
    self._shared.stage = stage

  def stop(self) -> None:
    """Asks the current stage to save and leave (SIGTERM)."""
    self._shared.stop = True

  def stopped(self) -> bool:
    """Returns whether the run was asked to stop."""
    return self._shared.stop

  def say(self, text: str, once: bool = False) -> None:
    """Shows a message in the first process.

    Args:
      text: the message.
      once: whether to skip a message that this run has shown before.
    """
    if peers.is_first_process() and not (once and text in self._shared.said):
      self.console.say(text)
    if once:
      self._shared.said.add(text)

  def once(self, key: Any, make: Callable[[], Any]) -> Any:
    """Returns the value of `make`, which is called only once in a run for each key."""
    known = self._shared.known
    if key not in known:
      known[key] = make()
    return known[key]

  @contextlib.contextmanager
  def progress(
    self, title: str, unit: str = "row", leave: bool = True
  ) -> Iterator[Callable[[int, int | None], None]]:
    """Shows the progress of one stage.

    Args:
      title: what is done, for the console.
      unit: what is counted, in the singular.
      leave: whether the function raises `Stopped` after a SIGTERM.

    Yields:
      A function to call with (done, total) after every step.
    """
    first = peers.is_first_process()
    shown = self.console.progress(title, unit) if first else _show_nothing()
    with shown as update, interrupts.pace() as note:

      def checked(done: int, total: int | None) -> None:
        note()
        update(done, total)
        if self.bucket is not None:
          self.bucket.check()
        if leave and self._shared.stop:
          raise Stopped(f"{title} after {done:,} {unit}s")

      yield checked

  def checkpoints(self, folder: Path) -> Any:
    """Returns the folder of the checkpoints of an artifact that is being made."""
    if self.bucket is not None:
      return self.bucket.checkpoints(folder)
    return folder / artifacts.UNHASHED

  @functools.cached_property
  def mesh(self) -> "jax.sharding.Mesh":
    """The mesh of the run's devices, made when a command first asks for it."""
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
    """Makes an artifact unless it is current, and says which and why.

    Args:
      artifact: the artifact.
      recipe: what the artifact is made from.
      build: writes the artifact's files into the folder that it is called with.
      again: a reason to make the artifact even if it is current; "" for none.
      together: whether all processes call `build`, on all devices; otherwise only the
        first one does, and the others wait.

    Returns:
      Whether the artifact was made.

    Raises:
      InputError: the processes of the run have different recipes.
      Stopped: the run was asked to stop before the artifact was begun.
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
    time_name = f"{name}.partial"
    try:
      with _making(artifact, recipe, self.bucket, together) as folder:
        if together or peers.is_first_process():
          build(folder)
      time_name = name
    finally:
      self.seconds[time_name] = time.monotonic() - start
    self.say(f"{recipe.stage}: {name} done in {self.seconds[name]:.1f} s")
    return True

  def _describe(self, recipe: artifacts.Recipe) -> dict[str, str]:
    """Returns a recipe as `agreement` compares it, without paths of one process."""
    config = artifacts.flatten(recipe.to_json()["config"])
    named = {f"the setting {key}": repr(value) for key, value in config.items()}
    inputs = {f"the hash of {key}": value[:16] for key, value in recipe.inputs.items()}
    folder = str(self.workdir.top or self.workdir.path)
    return {k: v.replace(folder, "--workdir") for k, v in {**named, **inputs}.items()}


@contextlib.contextmanager
def _making(
  artifact: artifacts.Artifact,
  recipe: artifacts.Recipe,
  bucket: Bucket | None,
  together: bool,
) -> Iterator[Path]:
  """Yields the folder in which an artifact is made, in all processes.

  The first process makes the folder and puts the artifact in place; the others wait.
  """
  name, first = f"{recipe.stage} {artifact.path.name}", peers.is_first_process()
  if first:
    with artifact.making(recipe) as folder:
      copying = bucket.making(artifact, recipe) if bucket else contextlib.nullcontext()
      with copying:
        peers.meet(f"{name} begins")
        if together and not bucket:
          shared_volume.wait_for_file(folder / artifacts.RECIPE)
        yield folder
    if bucket:
      bucket.put(artifact)
  else:
    peers.meet(f"{name} begins")
    if together and not bucket:
      shared_volume.wait_for_file(artifact.partial / artifacts.RECIPE)
    yield artifact.partial
  peers.meet(f"{name} is whole")
  if not bucket:
    shared_volume.wait_for_artifact(artifact)
  elif not first:
    bucket.get(artifact)


@contextlib.contextmanager
def _show_nothing() -> Iterator[Callable[[int, int | None], None]]:
  yield lambda done, total: None


def plain(config: Any) -> Any:
  """Converts a config section to values of JSON."""
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
  """Opens a run, which locks its workdir until the context ends.

  Args:
    cfg: the locked config.
    workdir: the folder of the artifacts, local or in a bucket.
    force: whether to accept a pool whose files have changed.
    **asked: other fields of `Run`: ids, arm, lists, out, devices.

  Raises:
    InputError: another process holds the workdir, it cannot be written to, or its
      bucket cannot be reached.
  """
  bucket = Bucket(workdir) if storage.is_remote(workdir) else None
  folders = Workdir(bucket.folder if bucket else Path(workdir).absolute())
  with contextlib.ExitStack() as held:
    warning = ""
    if peers.is_first_process() or bucket:  # which write to the folder
      warning = held.enter_context(holder.lock(folders.path))
    run = Run(cfg, folders, Console(folders.log), force, bucket=bucket, **asked)
    if warning:
      run.say(warning)
    if bucket:
      held.callback(bucket.leave)
      bucket.open(run.say)
    else:
      shared_volume.check(folders.path)
    if peers.is_first_process():
      artifacts.recover(folders.path)  # before the other processes look
    peers.meet("the workdir is open")
    if not bucket:
      shared_volume.wait_for_workdir(folders.path)
    with plugins.trusting({key: _read_setting(cfg, key) for key in PLUGGED}):
      yield run
    if bucket and peers.is_first_process():
      bucket.close()
      run.say(f"All results are in {workdir}.")


def _read_setting(cfg: Any, key: str) -> Any:
  for part in key.split("."):
    cfg = cfg[part]
  return plain(cfg)
