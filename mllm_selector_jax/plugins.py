"""Looks up strategies, bounds, metrics, signals and pool formats by name.

A name is an entry of the package's own table, an object of one of the user's modules
(`module:object`), or an entry point that an installed package declares. Only names
that the config of the run gives are imported (`trusting`). A name that comes from data,
such as a question file or a published card, is refused unless the config gives it too.
"""

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from mllm_selector_jax.types import InputError

PACKAGE = "mllm_selector_jax"
_WRITTEN = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_BREAKS = re.compile(r"[\s,;=]+")  # what may stand around a name in a setting

Entry = TypeVar("Entry")
# By setting the names that are trusted; the last one of each setting counts.
_given: list[dict[str, tuple[str, ...]]] = []


class PluginError(RuntimeError):
  """A plug-in's own code failed; the message names it, and where it failed."""


@contextlib.contextmanager
def trusting(settings: Mapping[str, Any]) -> Iterator[None]:
  """Lets the plug-ins that these settings name be imported, until the context ends.

  Args:
    settings: values by key: names, texts that hold several, such as
      "kl,my_module:mine" or "a: bound=my_module:mine", or lists and dicts of these.
  """
  entry = trust(settings)
  try:
    yield
  finally:
    _given.remove(entry)


def trust(settings: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
  """Trusts these settings until the process ends, as a worker of a run does.

  Returns:
    The names by key.
  """
  entry = {key: tuple(_split_names(value)) for key, value in settings.items()}
  _given.append(entry)
  return entry


def list_given(key: str) -> tuple[str, ...]:
  """The names that a setting gives, as far as settings are trusted."""
  return next((each[key] for each in reversed(_given) if key in each), ())


def _split_names(value: Any) -> Iterator[str]:
  if isinstance(value, str):
    yield from filter(None, _BREAKS.split(value))
  elif isinstance(value, Mapping):
    yield from _split_names(list(value.values()))
  elif isinstance(value, list | tuple):
    for each in value:
      yield from _split_names(each)


def _is_trusted(name: str) -> bool:
  return any(name in names for each in _given for names in each.values())


@contextlib.contextmanager
def calling(where: str) -> Iterator[None]:
  """Says whose fault it is when a plug-in's code raises.

  Raises:
    PluginError: the code raised something else than an InputError.
  """
  try:
    yield
  except InputError:
    raise
  except Exception as error:
    raise PluginError(
      f"{where} raised {type(error).__name__}: {error} ({_find_place(error)})"
    ) from error


def _find_place(error: BaseException) -> str:
  if isinstance(error, SyntaxError) and error.filename:
    return f"{Path(error.filename).name}, line {error.lineno}"
  last = traceback.extract_tb(error.__traceback__)[-1]
  return f"{Path(last.filename).name}, line {last.lineno}"


@dataclasses.dataclass(frozen=True)
class Lookup(Generic[Entry]):
  """A table of the package, and the plug-ins that extend it.

  Attributes:
    kind: what an entry is called in messages, such as "strategy".
    group: of the entry points of installed packages.
    table: the package's own entries by name; they go before plug-ins.
    adapt: makes an entry of a plug-in's name and object. It raises a TypeError that
      says what is allowed if the object is nothing of the kind.
    others: what else a value may be, for messages.
  """

  kind: str
  group: str
  table: Mapping[str, Entry]
  adapt: Callable[[str, Any], Entry]
  others: str = ""

  def find(self, name: str, option: str, verb: str = "is") -> Entry:
    """Gives the entry of a name.

    Args:
      name: of an entry of the table, `module:object`, or an entry point.
      option: the setting that the name is a value of, for messages.
      verb: "has" where the value holds several names.

    Raises:
      InputError: there is nothing of this name, it cannot be imported, it is not of
        this kind, or the config does not name it.
    """
    if name in self.table:
      return self.table[name]
    where = f"{option} {verb} {name!r}"
    found, _ = self._load(name, where)
    try:
      return self.adapt(name, found)
    except TypeError as error:
      raise InputError(f"{where}: {error}") from error

  def identify(self, *names: Any) -> dict[str, str]:
    """Gives a hash of the source of each plug-in among the names, for provenance.

    The hash is of the file of the module that is named and, if the object is defined
    in another file, of that one too. What these import is not followed.
    """
    digests = {}
    for name in names:
      if isinstance(name, str) and name not in self.table:
        found, module = self._load(name, f"{self.kind} {name}")
        digests[f"{self.kind} {name}"] = _hash_source(found, module)
    return digests

  def list_names(self) -> list[str]:
    """The names of the table, and those of installed plug-ins."""
    installed = [point.name for point in _list_points(self.group, tuple(sys.path))]
    return list(dict.fromkeys([*self.table, *installed]))

  def _load(self, name: str, where: str) -> tuple[Any, str]:
    """The object of a plug-in, and the module that the name leads to."""
    points = [p for p in _list_points(self.group, tuple(sys.path)) if p.name == name]
    written = _WRITTEN.fullmatch(name)
    if not written and not points:
      near = difflib.get_close_matches(name, self.list_names(), 1)
      raise InputError(
        where
        + (f" (did you mean {near[0]}?)" if near else "")
        + f"; allowed: {', '.join(self.list_names())}{self.others}. A {self.kind} of"
        " your own is given as module:function (docs/extending.md)."
      )
    if not _is_trusted(name):
      raise InputError(
        f"{where}: this plug-in is not named by the config of this run, and nothing is"
        " imported because data names it. If you trust it, name it in the config"
        " (docs/extending.md)."
      )
    if written:
      return _import(written[1], written[2], where), written[1]
    values = sorted({point.value for point in points})
    if len(values) > 1:
      raise InputError(
        f"{where}: several installed packages declare this {self.kind}:"
        f" {', '.join(values)}. Give one of these as module:function."
      )
    written = _WRITTEN.fullmatch(values[0])
    if not written:
      raise InputError(
        f"{where}: the entry point leads to {values[0]!r}, which is not of the form"
        " module:function."
      )
    return _import(written[1], written[2], where), written[1]


@functools.lru_cache(maxsize=32)
def _list_points(
  group: str, path: tuple[str, ...]
) -> tuple[importlib.metadata.EntryPoint, ...]:
  """Entry points of the packages on a search path, which is what the cache goes by."""
  return tuple(importlib.metadata.entry_points(group=group))


def _import(module: str, name: str, where: str) -> Any:
  try:
    found = importlib.import_module(module)
  except ModuleNotFoundError as error:
    missing = error.name or module
    if f"{module}.".startswith(f"{missing}."):
      raise InputError(
        f"{where}: there is no module {missing!r}. Install the package that holds it,"
        " or add its folder to PYTHONPATH."
      ) from error
    raise InputError(
      f"{where}: the module {module!r} imports {missing!r}, which is not installed."
    ) from error
  except (Exception, SystemExit) as error:
    raise InputError(
      f"{where}: the module {module!r} raises {type(error).__name__} when it is"
      f" imported: {error} ({_find_place(error)})."
    ) from error
  if not hasattr(found, name):
    there = [each for each in vars(found) if not each.startswith("_")]
    raise InputError(
      f"{where}: the module {module!r} ({getattr(found, '__file__', 'built in')}) has"
      f" no {name!r}; it has {', '.join(there[:20]) or 'nothing'}."
    )
  return getattr(found, name)


def _hash_source(found: Any, module: str) -> str:
  """A hash of the files that define an object; "" where it has no file."""
  names = [getattr(sys.modules.get(module), "__file__", None)]
  parts = [found]
  if dataclasses.is_dataclass(found):
    parts += [getattr(found, field.name) for field in dataclasses.fields(found)]
  for part in parts:
    with contextlib.suppress(TypeError):
      names.append(inspect.getsourcefile(inspect.unwrap(part)))
  digest = hashlib.sha256()
  for name in dict.fromkeys(filter(None, names)):
    digest.update(Path(name).read_bytes())
  return digest.hexdigest()
