"""Rows of the pool by what their records say, for records that no id tells apart."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

import numpy as np
from jaxtyping import Bool, Int

from mllm_selector_jax.data import formats
from mllm_selector_jax.data.pool.likeness import read_likeness
from mllm_selector_jax.data.pool.pool_table import PoolTable

Key = tuple[int | None, bytes]
Watch = Callable[[str], AbstractContextManager[Callable[[int, int | None], None]]]


class Alike:
  """Rows by the code of their id, None for rows without one, and by their text.

  Args:
    pool: the checked pool, whose records are read.
    watch: by a title, a context whose function is told of records done and all.
  """

  def __init__(self, pool: PoolTable, watch: Watch):
    self._pool, self._watch = pool, watch
    self._rows: dict[Key, list[int]] = collections.defaultdict(list)
    self._own_image: dict[int, str | None] = {}
    self._images: dict[Key, dict[tuple, list[int]]] = {}
    self._queues: dict[tuple, _Queue] = {}

  def add(self, rows: Mapping[int, Int[np.ndarray, " k"]]) -> None:
    """Reads the records of these rows, by the code of their id."""
    pairs = sorted((int(row), code) for code, own in rows.items() for row in own)
    self._read(pairs)

  def add_nameless(self, wanted: Iterable[tuple[bytes, str | None]]) -> None:
    """Reads the records of rows without an id, and of others if that is not enough.

    Other rows may have an id that their record does not show, such as a tar's.

    Args:
      wanted: text and image of the records that are looked for.
    """
    wanted = set(wanted)
    usable = np.flatnonzero(self._pool.ok)
    pairs = zip(usable.tolist(), self._pool.id[usable], strict=True)
    nameless = np.array([name == f"row-{row}" for row, name in pairs], bool)
    likely = self._may_show(usable, {_base(image) for _, image in wanted})
    for mask in (nameless & likely, nameless & ~likely, ~nameless):
      if all((None, text) in self._rows for text, _ in wanted):
        return
      self._read([(int(row), None) for row in usable[mask]])

  def _may_show(
    self, rows: Int[np.ndarray, " n"], bases: set[str | None]
  ) -> Bool[np.ndarray, " n"]:
    """Which of the rows may have one of these images, without reading records."""
    files = self._pool.file[rows]
    names = [_first(self._pool.images[row]) for row in rows]
    plain = {file: formats.find_format(file) is formats.JsonFile for file in set(files)}
    pairs = zip(files, names, strict=True)
    return np.array([not plain[f] or _base(name) in bases for f, name in pairs], bool)

  def find(
    self, code: int | None, text: bytes, image: str | None
  ) -> Iterator[int] | None:
    """The rows of an id, or without one, of a text and an image; None if none has it.

    The same question gives the same iterator, so that each of several equal records
    gets a row of its own.
    """
    key = code, text
    if key not in self._rows:
      return None
    if (key, image) not in self._queues:
      rows, is_image = self._narrow(key, image)
      self._queues[key, image] = _Queue(rows, is_image)
    queue = self._queues[key, image]
    queue.asked += 1
    return queue.left

  def count(self) -> dict[str, int]:
    """How many records were found with a doubt, by its kind."""
    found = collections.Counter()
    for queue in self._queues.values():
      if not queue.is_image:
        found["renamed"] += queue.asked
      elif queue.asked < len(queue.rows):
        # Rows of the same content stand for each other.
        several = len(set(self._pool.hash.codes[queue.rows].tolist())) > 1
        found["alike"] += several * queue.asked
    return found

  def _read(self, pairs: list[tuple[int, int | None]]) -> None:
    with self._watch("records of rows that the list may mean") as progress:
      for done, (row, code) in enumerate(pairs, 1):
        self._add(row, code)
        progress(done, len(pairs))

  def _add(self, row: int, code: int | None) -> None:
    record = self._pool.record(row)
    if (likeness := read_likeness(record)) is not None:
      self._rows[code, likeness.text].append(row)
      if record.pictures is not None:
        # The images lie in the pool's file; the record may name them otherwise.
        own = read_likeness(record._replace(pictures=None))
        self._own_image[row] = own and own.image

  def _narrow(self, key: Key, image: str | None) -> tuple[list[int], bool]:
    """The key's rows of this image; all of them, and False, where none has it."""
    rows = self._rows[key]
    if key not in self._images:
      self._images[key] = self._index(rows)
    by = self._images[key]
    if found := by.get(("name", image)):
      return found, True
    if image is None:
      return rows, False
    base = _base(image)
    if found := by.get(("hash", base.partition(".")[0])):
      return found, True  # as our exports name images from inside a pool's file
    found = by.get(("base", base), [])
    names = [_first(self._pool.images[row]) for row in found]
    # A trainer's paths are absolute, the pool's mostly lie inside a folder.
    pairs = zip(found, names, strict=True)
    ends = [row for row, name in pairs if _ends_alike(name, image)]
    return (ends, True) if ends else (rows, False)

  def _index(self, rows: list[int]) -> dict[tuple, list[int]]:
    by = collections.defaultdict(list)
    for row in rows:
      name = _first(self._pool.images[row])
      labels = [("name", name), ("hash", _first(self._pool.image_hashes[row]))]
      labels.append(("base", _base(name)))
      if row in self._own_image:
        labels.append(("name", self._own_image[row]))
      for label in dict.fromkeys(labels):
        by[label].append(row)
    return by


class _Queue:
  """Rows that are alike, each given once; `asked` counts the records."""

  def __init__(self, rows: list[int], is_image: bool):
    self.rows, self.is_image = rows, is_image
    self.left = iter(rows)
    self.asked = 0


def _first(values: tuple[str, ...]) -> str | None:
  """What stands for a row's first image; None where it has none."""
  return values[0] if values else None


def _base(name: str | None) -> str | None:
  return name and name.rpartition("/")[2]


def _ends_alike(one: str, other: str) -> bool:
  shorter, longer = sorted((one, other), key=len)
  return longer == shorter or longer.endswith(f"/{shorter.removeprefix('./')}")
