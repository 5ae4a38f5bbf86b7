"""The kinds of input that are fuzzed, each with the project's own reader.

A kind writes sound examples into a folder, and reads the folder. Whatever a mutation
did to the files, reading ends with "taken", or with an `InputError`, or sets rows aside
with a reason and counts them.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mllm_selector_jax.types import InputError, RowError
from tests.fuzz.mutators import change_file
from tests.fuzz.reached import Reached

TAKEN, ASIDE, REFUSED = "taken", "aside", "refused"
MOST_MESSAGE = 400_000  # characters: of weights, all wrong tensors are listed
# What a message to a user never holds.
_SIGNS = ("Traceback (", "object at 0x", "__main__")

Files = dict[str, bytes]


class Kind(NamedTuple):
  """A kind of input.

  Attributes:
    name: for tables and logs.
    write: writes the sound example of a number into an empty folder.
    read: reads the folder with the project's reader; returns TAKEN or ASIDE, or raises
      an InputError.
    examples: how many examples there are.
    share: of all cases that a run has, relative to other kinds.
    keep: suffixes of files that are not changed.
  """

  name: str
  write: Callable[[Path, int], None]
  read: Callable[[Path], str]
  examples: int = 1
  share: float = 1.0
  keep: tuple[str, ...] = ()


class Case(NamedTuple):
  """One input: its files, and those of them that were changed."""

  files: Files
  changed: Files


def read_files(folder: Path) -> Files:
  """The bytes of all files below a folder, by relative path."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


class Sampler:
  """Draws cases of a kind, and reads them in one folder.

  Args:
    kind: of input.
    folder: an empty one, to write the examples and the cases into.
    reached: counts the lines that cases run. With it, a case that is the first to run a
      line is changed further, too.
  """

  def __init__(self, kind: Kind, folder: Path, reached: Reached | None = None):
    self.kind, self.folder, self._reached = kind, folder, reached
    self._bases: list[tuple[Path, Files]] = []
    for number in range(kind.examples):
      base = folder / str(number)
      base.mkdir(parents=True)
      kind.write(base, number)
      self._bases.append((base, read_files(base)))
    # Changed files that had a new outcome or ran new lines, which are changed further.
    self._kept: list[tuple[int, Files]] = []
    self._outcomes: set[str] = set()
    self.latest: Case | None = None  # the case that was read last

  def check_examples(self) -> None:
    """Reads the sound examples, none of which may be refused."""
    for base, _ in self._bases:
      assert self.kind.read(base) in (TAKEN, ASIDE)

  def draw(self, seed: int) -> tuple[int, Case]:
    """The case of a seed, after all cases before: the example's number, and files."""
    rng = random.Random(seed)
    number, changed = rng.randrange(len(self._bases)), {}
    if self._kept and rng.random() < 0.5:
      number, changed = rng.choice(self._kept)
    files = {**self._bases[number][1], **changed}
    names = [name for name in files if not name.endswith(self.kind.keep or ("\0",))]
    changed = dict(changed)
    for name in rng.sample(names, min(len(names), rng.choice((1, 1, 1, 2)))):
      changed[name] = change_file(name, files[name], rng)
    return number, Case(files, changed)

  def run(self, seed: int) -> str:
    """Reads the case of a seed; returns the outcome, or raises what is a find."""
    number, case = self.draw(seed)
    self.latest = case
    base, sound = self._bases[number]
    for name, data in case.changed.items():
      (base / name).write_bytes(data)
    lines = self._reached.lines if self._reached else 0
    try:
      outcome, detail = self._read(base)
    finally:
      for name in case.changed:
        (base / name).write_bytes(sound[name])
    further = self._reached is not None and self._reached.lines > lines
    self._learn(number, case.changed, detail, further)
    return outcome

  def _read(self, base: Path) -> tuple[str, str]:
    try:
      outcome = self.kind.read(base)
      return outcome, outcome
    except RowError as error:
      assert error.reason, error
      return ASIDE, f"{error.reason} {error.detail}"
    except InputError as error:
      text = str(error)
      assert 0 < len(text) < MOST_MESSAGE, len(text)
      assert not any(sign in text for sign in _SIGNS), text
      text.encode("utf-8", "backslashreplace")
      return REFUSED, text

  def _learn(self, number: int, changed: Files, detail: str, further: bool) -> None:
    """Keeps a case whose outcome is new or which came further, to go on from there."""
    shape = "".join(c for c in detail[:300] if c.isalpha() or c == " ")[:80]
    size = sum(map(len, changed.values()))
    if shape in self._outcomes and not further:
      return
    if len(self._kept) > 300 or size > 1 << 20:
      return
    self._outcomes.add(shape)
    self._kept.append((number, changed))


def write_json(path: Path, value: object) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))


def list_kinds() -> list[Kind]:
  """All kinds, imported here since their readers take seconds to import."""
  from tests.fuzz import list_kinds, model_kinds, pool_kinds, setting_kinds

  modules = (pool_kinds, list_kinds, setting_kinds, model_kinds)
  return [kind for module in modules for kind in module.list_kinds()]
