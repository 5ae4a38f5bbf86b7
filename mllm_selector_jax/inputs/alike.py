"""Finds rows by the content of their records, where ids do not identify them."""

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
  """An index of pool rows by the code of their id and the text of their record.

  The code is that of `PoolTable.id`, or None for rows that are looked up without id.

  Args:
    pool: The checked pool, whose records are read.
    watch: Takes a title and returns a context manager that shows progress; its
      function takes the number of finished records and the total.
  """

  def __init__(self, pool: PoolTable, watch: Watch):
    self._pool, self._watch = pool, watch
    self._rows: dict[Key, list[int]] = collections.defaultdict(list)
    self._named_image: dict[int, str | None] = {}
    self._images: dict[Key, dict[tuple, list[int]]] = {}
    self._queues: dict[tuple, _Queue] = {}

  def add(self, rows: Mapping[int, Int[np.ndarray, " k"]]) -> None:
    """Read the records of some rows.

    Args:
      rows: Pool row numbers by the code of their id.
    """
    pairs = sorted((int(row), code) for code, group in rows.items() for row in group)
    self._read(pairs)

  def add_nameless(self, targets: Iterable[tuple[bytes, str | None]]) -> None:
    """Read records until every target is found, rows without an id first.

    Rows with an id are read too, since a record need not hold its id: that of a tar
    file is in the name of its members.

    Args:
      targets: The text and the image of the records that are looked for.
    """
    targets = set(targets)
    usable = np.flatnonzero(self._pool.ok)
    pairs = zip(usable.tolist(), self._pool.id[usable], strict=True)
    nameless = np.array([name == f"row-{row}" for row, name in pairs], bool)
    likely = self._may_show(usable, {_file_name(image) for _, image in targets})
    for mask in (nameless & likely, nameless & ~likely, ~nameless):
      if all((None, text) in self._rows for text, _ in targets):
        return
      self._read([(int(row), None) for row in usable[mask]])

  def _may_show(
    self, rows: Int[np.ndarray, " n"], bases: set[str | None]
  ) -> Bool[np.ndarray, " n"]:
    """Mark the rows that may have one of these images, without reading records."""
    files = self._pool.file[rows]
    names = [_first(self._pool.images[row]) for row in rows]
    plain = {file: formats.find_format(file) is formats.JsonFile for file in set(files)}
    pairs = zip(files, names, strict=True)
    return np.array(
      [not plain[f] or _file_name(name) in bases for f, name in pairs], bool
    )

  def find(
    self, code: int | None, text: bytes, image: str | None
  ) -> Iterator[int] | None:
    """Find the rows with some id, text and image.

    Repeated calls return the same iterator, so that each of several equal records gets
    a different row.

    Args:
      code: Code of the id; None for a record without id.
      text: Digest of the conversation, as in `likeness.Likeness`.
      image: Name of the image, or None.

    Returns:
      An iterator over row numbers; None if no row has this id and text.
    """
    key = code, text
    if key not in self._rows:
      return None
    if (key, image) not in self._queues:
      rows, has_image = self._narrow(key, image)
      self._queues[key, image] = _Queue(rows, has_image)
    queue = self._queues[key, image]
    queue.asked += 1
    return queue.left

  def count(self) -> dict[str, int]:
    """Count the records whose match is uncertain, by kind.

    "renamed": no row has this image, and the text decided. "alike": several rows match
    and differ in content.
    """
    doubts = collections.Counter()
    for queue in self._queues.values():
      if not queue.has_image:
        doubts["renamed"] += queue.asked
      elif queue.asked < len(queue.rows):
        # Rows with the same content are interchangeable.
        several = len(set(self._pool.hash.codes[queue.rows].tolist())) > 1
        doubts["alike"] += several * queue.asked
    return doubts

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
        # The images are inside the pool's file; the record may have other names.
        plain = read_likeness(record._replace(pictures=None))
        self._named_image[row] = plain and plain.image

  def _narrow(self, key: Key, image: str | None) -> tuple[list[int], bool]:
    """Return the rows of the key with this image, and True.

    If no row has this image, return all rows of the key, and False.
    """
    rows = self._rows[key]
    if key not in self._images:
      self._images[key] = self._index(rows)
    index = self._images[key]
    if matches := index.get(("name", image)):
      return matches, True
    if image is None:
      return rows, False
    base = _file_name(image)
    if matches := index.get(("hash", base.partition(".")[0])):
      return matches, True  # exports name images from inside a pool's file by hash
    matches = index.get(("base", base), [])
    names = [_first(self._pool.images[row]) for row in matches]
    # Paths of a trainer are absolute; those of a pool are mostly relative.
    pairs = zip(matches, names, strict=True)
    ends = [row for row, name in pairs if _ends_alike(name, image)]
    return (ends, True) if ends else (rows, False)

  def _index(self, rows: list[int]) -> dict[tuple, list[int]]:
    index = collections.defaultdict(list)
    for row in rows:
      name = _first(self._pool.images[row])
      labels = [("name", name), ("hash", _first(self._pool.image_hashes[row]))]
      labels.append(("base", _file_name(name)))
      if row in self._named_image:
        labels.append(("name", self._named_image[row]))
      for label in dict.fromkeys(labels):
        index[label].append(row)
    return index


class _Queue:
  """Rows that match the same record; each is handed out once.

  `asked` counts the records that asked for a row.
  """

  def __init__(self, rows: list[int], has_image: bool):
    self.rows, self.has_image = rows, has_image
    self.left = iter(rows)
    self.asked = 0


def _first(values: tuple[str, ...]) -> str | None:
  """Returns what stands for a row's first image; None where it has none."""
  return values[0] if values else None


def _file_name(name: str | None) -> str | None:
  return name and name.rpartition("/")[2]


def _ends_alike(first: str, second: str) -> bool:
  shorter, longer = sorted((first, second), key=len)
  return longer == shorter or longer.endswith(f"/{shorter.removeprefix('./')}")
