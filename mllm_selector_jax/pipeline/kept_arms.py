"""Finds the folder of an arm by what it is, so that no finished work is overwritten.

An arm with other settings gets a folder of its own. If the settings are those of an
earlier arm, that one is used again, and its selection and its model are not made anew.
"""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mllm_selector_jax.pipeline.arms import POINTERS, point
from mllm_selector_jax.runs import arm_pointers, artifacts, peers
from mllm_selector_jax.runs.artifacts import Artifact, Recipe, flatten
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.workdir import Workdir

_MOST = 60  # characters of the settings in a name
_LARGE = 10_000_000  # bytes of a file that is linked instead of copied
_SHOWN = 4  # differences that a message names


def place_selection(
  run: Run, recipe: Recipe, changed: dict[str, Any], fits: Callable[[str], bool]
) -> str:
  """Return the name of the folder for a selection, in all processes.

  Args:
    run: The invocation.
    recipe: What the selection is made from.
    changed: Settings that differ from the config, which belong into a name.
    fits: Whether an arm's finished model has the settings of the config.
  """
  name = _find_selection(run, recipe, changed, fits) if _is_first() else ""
  return peers.exchange(name)[0]


def place_model(run: Run, arm: str, recipe: Recipe) -> str:
  """Return the name of the folder for the tuned model of an arm, in all processes.

  If the arm has a model that was made from something else, it is the folder of another
  arm with the same selection, which is made if there is none. If `arm` is a pointer, it
  names that folder afterwards.

  Args:
    run: The invocation.
    arm: Name of the arm, or a pointer.
    recipe: What the model is made from.
  """
  before = run.workdir.resolve(arm)
  name = _find_model(run, before, recipe) if _is_first() else ""
  name = peers.exchange(name)[0]
  if name != before:
    made = run.workdir.tuned(before).provenance() or {}
    changes = recipe.differences(made)
    run.say(
      f"tune: arms/{before} has a model made with other settings"
      f" ({'; '.join(changes[:_SHOWN])}{' ...' if len(changes) > _SHOWN else ''});"
      f" it is kept, and this one is arms/{name}"
    )
    _copy(run, run.workdir.selection(before), run.workdir.selection(name))
  else:
    _borrow_model(run, name, recipe)
  if arm in POINTERS:
    point(run, arm, name)
  return name


def adopt(run: Run, pointer: str) -> None:
  """Rename the folder `arms/main` or `arms/random` of an older version to what it is.

  All processes call this.
  """
  work = run.workdir
  folder = work.arms / pointer
  is_old = folder.is_dir() and not folder.is_symlink()
  if is_old and arm_pointers.read_or_none(work.arms, pointer) is not None:
    is_old = False
  name = ""
  if _is_first() and is_old:
    made = work.selection(pointer).provenance()
    name = _free(work, _stem(made["config"], made["seed"]) if made else f"{pointer}-1")
  name = peers.exchange(name)[0]
  if not name:
    return
  if run.bucket and _is_first():
    run.bucket.move(folder, work.arms / name)
  if run.bucket or _is_first():
    folder.rename(work.arms / name)
  point(run, pointer, name)
  run.say(f"select: arms/{pointer} of an older version is now arms/{name}")


def _is_first() -> bool:
  return peers.is_first_process()


def _find_selection(run, recipe, changed, fits) -> str:
  work = run.workdir
  pointed = [work.resolve(pointer) for pointer in POINTERS]
  # Those that a pointer names come first, so that a run stays where it was.
  names = sorted(arm_pointers.list_arms(work.arms), key=lambda n: (n not in pointed, n))
  made = {name: work.selection(name).provenance() for name in names}
  same = [name for name in names if made[name] and not recipe.differences(made[name])]
  if same:
    return min(same, key=lambda name: _order(work, name, fits))
  for name in names:
    if made[name] and _has_settings(made[name], recipe) and not _is_tuned(work, name):
      return name
  stem = _stem(recipe.config, recipe.seed, changed)
  held = made.get(stem)
  if held and not _has_settings(held, recipe):
    stem = _extend(stem, _differences(held["config"], recipe.to_json()["config"]))
  return _free(work, stem)


def _order(work: Workdir, name: str, fits: Callable[[str], bool]) -> int:
  """Rank arms with the same selection: the wanted model, then none, then another."""
  if not _is_tuned(work, name):
    return 1
  return 0 if fits(name) else 2


def _is_tuned(work: Workdir, name: str) -> bool:
  return work.tuned(name).provenance() is not None


def _has_settings(made: dict[str, Any], recipe: Recipe) -> bool:
  """Return whether a selection was made with the same settings, from other inputs."""
  new = recipe.to_json()
  # The inputs of the winner of a search say so, and are those of no other arm.
  same = made["inputs"].keys() == new["inputs"].keys()
  return same and made["config"] == new["config"] and made["seed"] == new["seed"]


def _find_model(run: Run, arm: str, recipe: Recipe) -> str:
  work = run.workdir
  selection = work.selection(arm).provenance()
  begun = _read_model(work, arm)
  if not begun or not recipe.differences(begun):
    return arm
  twins = {
    name: _read_model(work, name)
    for name in arm_pointers.list_arms(work.arms)
    if work.selection(name).provenance() == selection
  }
  for name, model in twins.items():
    if model and not recipe.differences(model):
      return name
  if not any(_is_tuned(work, name) for name in twins):
    return arm  # what was begun with other settings is kept beside it
  first = min(twins, key=len)
  old = (twins[first] or begun)["config"]
  stem = _extend(first, _differences(old, recipe.to_json()["config"]))
  others = set(arm_pointers.list_arms(work.arms)) - {n for n in twins if not twins[n]}
  return next(name for name in _numbered(stem) if name not in others)


def _read_model(work: Workdir, arm: str) -> dict[str, Any] | None:
  """Read what an arm's model was made from, or what an interrupted one is made from."""
  artifact = work.tuned(arm)
  begun = artifacts.read_recipe(artifact.partial)
  return artifact.provenance() or (json.loads(begun) if begun else None)


def _borrow_model(run: Run, arm: str, recipe: Recipe) -> None:
  """Take over the model of another arm that was tuned in the same way on the same rows.

  Settings may differ without a difference in the rows, such as those that a new
  version of this package adds.
  """
  lender = _find_lender(run.workdir, arm, recipe) if _is_first() else ""
  if lender := peers.exchange(lender)[0]:
    run.say(f"tune: arms/{arm} has the rows of arms/{lender}, whose model is used")
    _copy(run, run.workdir.tuned(lender), run.workdir.tuned(arm))


def _find_lender(work: Workdir, arm: str, recipe: Recipe) -> str:
  if _read_model(work, arm):
    return ""
  for name in arm_pointers.list_arms(work.arms):
    made = work.tuned(name).provenance()
    if made and not recipe.differences(made) and not work.tuned(name).why_stale(recipe):
      return name
  return ""


def _copy(run: Run, source: Artifact, target: Artifact) -> None:
  """Make an artifact by copying one with the same recipe."""
  made = source.provenance()
  assert made is not None
  recipe = Recipe(made["stage"], made["config"], made["inputs"], made["seed"])

  def build(folder: Path):
    for name in made["outputs"]:
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      _copy_file(source.path / name, folder / name)

  run.make(target, recipe, build)


def _copy_file(source: Path, target: Path) -> None:
  # A large file, such as weights, is stored once. People edit small ones in place.
  if source.stat().st_size >= _LARGE:
    with contextlib.suppress(OSError):  # not on every file system
      os.link(source, target)
      return
  shutil.copyfile(source, target)


def _stem(
  config: dict[str, Any], seed: int, changed: dict[str, Any] | None = None
) -> str:
  # "seed" tells these arms from those of `compare`, which end in a number alone.
  stem = f"{config['strategy']}-{config['budget']}-seed{seed}"
  return _extend(arm_pointers.clean_name(stem)[:60], changed or {})


def _extend(stem: str, changed: dict[str, Any]) -> str:
  """Append settings to a name, as many as fit."""
  name = stem
  for key, value in changed.items():
    part = f"{key.split('.')[-1]}={_shorten(value)}"
    if len(name) + len(part) - len(stem) > _MOST:
      break
    name = f"{name}-{arm_pointers.clean_name(part)}"
  return name[:110]


def _shorten(value: Any) -> str:
  """Return a setting as part of a name: lists by their length, files by their names."""
  if isinstance(value, list | tuple | dict):
    return f"{len(value)}_given"
  return Path(value).name if isinstance(value, str) else str(value)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
  old, new = flatten(old), flatten(new)
  return {
    key: new.get(key) for key in sorted(old | new) if old.get(key) != new.get(key)
  }


def _free(work: Workdir, stem: str) -> str:
  """Return a name under which there is no finished selection."""
  return next(n for n in _numbered(stem) if not work.selection(n).provenance())


def _numbered(stem: str) -> Iterator[str]:
  yield stem
  for number in itertools.count(2):
    yield f"{stem}-{number}"
