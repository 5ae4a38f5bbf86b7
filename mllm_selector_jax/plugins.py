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
# The trusted names by setting, of each open `trusting` context. The last entry that has
# a setting counts.
_trusted: list[dict[str, tuple[str, ...]]] = []


class PluginError(RuntimeError):
  """A plug-in's own code failed; the message says which one, and where."""


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
    _trusted.remove(entry)


def trust(settings: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
  """Trusts these settings until the process ends, as a worker process of a run needs.

  Returns:
    The names by key.
  """
  entry = {key: tuple(_split_names(value)) for key, value in settings.items()}
  _trusted.append(entry)
  return entry


def list_given(key: str) -> tuple[str, ...]:
  """Returns the names that a trusted setting gives; () if it is not trusted."""
  return next((entry[key] for entry in reversed(_trusted) if key in entry), ())


def _split_names(value: Any) -> Iterator[str]:
  if isinstance(value, str):
    yield from filter(None, _BREAKS.split(value))
  elif isinstance(value, Mapping):
    yield from _split_names(list(value.values()))
  elif isinstance(value, list | tuple):
    for item in value:
      yield from _split_names(item)


def _is_trusted(name: str) -> bool:
  return any(name in names for entry in _trusted for names in entry.values())


@contextlib.contextmanager
def calling(where: str) -> Iterator[None]:
  """Turns exceptions of a plug-in's code into errors that name the plug-in.

  Args:
    where: what is called, as the beginning of a sentence.

  Raises:
    PluginError: the code raised an exception other than an InputError.
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
  """Finds entries of one kind by name, in the package's own table and among plug-ins.

  Attributes:
    kind: what an entry is called in messages, such as "strategy".
    group: the group of entry points by which installed packages declare plug-ins.
    table: the package's own entries by name; they take precedence over plug-ins.
    adapt: makes an entry from the name and the object of a plug-in. If the object is
      not of this kind, it raises a TypeError that says what is allowed.
    others: other allowed values, for messages.
  """

  kind: str
  group: str
  table: Mapping[str, Entry]
  adapt: Callable[[str, Any], Entry]
  others: str = ""

  def find(self, name: str, option: str, verb: str = "is") -> Entry:
    """Returns the entry of a name.

    Args:
      name: the name of an entry of the table or of an entry point, or `module:object`.
      option: the setting whose value the name is, for messages.
      verb: the verb between the setting and the name in messages, such as "has" if the
        setting holds several names.

    Raises:
      InputError: there is no such name, it cannot be imported, it is not of this kind,
        or the config does not name it.
    """
    if name in self.table:
      return self.table[name]
    where = f"{option} {verb} {name!r}"
    plugin, _ = self._load(name, where)
    try:
      return self.adapt(name, plugin)
    except TypeError as error:
      raise InputError(f"{where}: {error}") from error

  def identify(self, *names: Any) -> dict[str, str]:
    """Returns a hash of the source of each plug-in among the names, for provenance.

    The hash covers the file of the named module and, if the object is defined in
    another file, that one too. It does not cover what these files import.
    """
    digests = {}
    for name in names:
      if isinstance(name, str) and name not in self.table:
        plugin, module = self._load(name, f"{self.kind} {name}")
        digests[f"{self.kind} {name}"] = _hash_source(plugin, module)
    return digests

  def list_names(self) -> list[str]:
    """Lists the names of the table, and those of installed plug-ins."""
    installed = [point.name for point in _list_points(self.group, tuple(sys.path))]
    return list(dict.fromkeys([*self.table, *installed]))

  def _load(self, name: str, where: str) -> tuple[Any, str]:
    """Imports a plug-in, and returns its object and the name of its module."""
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
  """Lists the entry points of a group; `path` is `sys.path`, as a key of the cache."""
  return tuple(importlib.metadata.entry_points(group=group))


def _import(module: str, name: str, where: str) -> Any:
  """Imports a module, and returns the object of a name in it."""
  try:
    imported = importlib.import_module(module)
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
  if not hasattr(imported, name):
    public = [attribute for attribute in vars(imported) if attribute[:1] != "_"]
    raise InputError(
      f"{where}: the module {module!r} ({getattr(imported, '__file__', 'built in')})"
      f" has no {name!r}; it has {', '.join(public[:20]) or 'nothing'}."
    )
  return getattr(imported, name)


def _hash_source(plugin: Any, module: str) -> str:
  """Hashes the files in which a plug-in and its parts are defined."""
  names = [getattr(sys.modules.get(module), "__file__", None)]
  parts = [plugin]
  if dataclasses.is_dataclass(plugin):
    parts += [getattr(plugin, field.name) for field in dataclasses.fields(plugin)]
  for part in parts:
    with contextlib.suppress(TypeError):
      names.append(inspect.getsourcefile(inspect.unwrap(part)))
  digest = hashlib.sha256()
  for name in dict.fromkeys(filter(None, names)):
    digest.update(Path(name).read_bytes())
  return digest.hexdigest()
