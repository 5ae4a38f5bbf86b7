"""Which rows of the pool the entries of a list mean.

A row is its number in the pool and the hash of its content; an id is a label, which
may be that of several rows. So a number or a hash beside the id decides, a whole
record is compared with the records of its id, and a bare id stands for all its rows,
which is said.
"""

import collections
import contextlib
import csv
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data import listing
from mllm_selector_jax.data.table import PoolTable
from mllm_selector_jax.data.text import Text
from mllm_selector_jax.stages.alike import Alike, Watch
from mllm_selector_jax.stages.lists import Reference
from mllm_selector_jax.types import InputError

SHOWN = 5  # of the entries that an error names
EXACT = (
  "To be exact, give row numbers or hashes beside the ids, as exports/ids/ids.txt and"
  " selection.parquet have them."
)


class Rows(NamedTuple):
  """The rows that a list means.

  Attributes:
    rows: ascending, each once.
    entries: of the list.
    repeated: entries that name no row which those before them do not name.
    notes: what the reader should know of how they were found.
  """

  rows: Int[np.ndarray, " K"]
  entries: int
  repeated: int = 0
  notes: tuple[str, ...] = ()


@contextlib.contextmanager
def _watch_nothing(title: str) -> Iterator[Any]:
  yield lambda done, total: None


def find_rows(
  pool: PoolTable,
  entries: Sequence[Reference],
  option: str,
  watch: Watch = _watch_nothing,
) -> Rows:
  """The rows that the entries mean.

  Where an id, a hash or a record stands for several rows, those that were set aside
  count only if all were.

  Args:
    pool: the checked pool.
    entries: from `lists.read_references`.
    option: that gave the list, for messages.
    watch: shows how far the pool's records are read, where that is needed.

  Raises:
    InputError: an entry that is no row's.
  """
  search = _Search(pool, option)
  entries = search.split(entries)
  search.find(entries)
  search.compare(watch)
  return search.result(len(entries))


def list_rows(
  pool: PoolTable, entries: Sequence[Reference], option: str
) -> list[Int[np.ndarray, " k"]]:
  """The rows of each of a few entries, those that were set aside too.

  Raises:
    InputError: an entry that is no row's.
  """
  split, found = _Search(pool, option).split(entries), []
  for entry in split:
    search = _Search(pool, option, every=True)
    search.find([entry])
    found.append(search.result(1).rows)
  return found


class _Places:
  """The rows of each text of a column."""

  def __init__(self, column: Text):
    codes = column.codes
    self._order = np.argsort(codes, kind="stable")
    wanted = np.arange(codes.max(initial=-1) + 2)
    self._starts = np.searchsorted(codes[self._order], wanted)

  def __getitem__(self, code: int) -> Int[np.ndarray, " k"]:
    return self._order[self._starts[code] : self._starts[code + 1]]

  def count(self, codes: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How many rows have each text; 0 for the code -1."""
    return np.where(codes < 0, 0, np.diff(self._starts)[codes])


class _Search:
  """One list's way to its rows."""

  def __init__(self, pool: PoolTable, option: str, every: bool = False):
    self._pool, self._option, self._every = pool, option, every
    self._taken = np.zeros(len(pool), bool)
    self._counts: collections.Counter[str] = collections.Counter()
    self._repeated = 0
    self._unknown: list[str] = []
    self._is_path = False
    self._wrong: list[str] = []
    self._records: list[tuple[Reference, int | None]] = []

  def split(self, entries: Sequence[Reference]) -> list[Reference]:
    """The entries, with texts of several ids made one entry an id."""
    found = []
    for entry in entries:
      if entry.inline and self._pool.id.find([entry.id])[0] < 0:
        found += [Reference(part, inline=True) for part in _split(entry.id)]
      else:
        found.append(entry)
    codes = self._find_ids(found)
    return [
      _read_bare(entry) if code < 0 else entry
      for entry, code in zip(found, codes, strict=True)
    ]

  def find(self, entries: Sequence[Reference]) -> None:
    """Takes the rows of all entries but of the records that must be compared."""
    codes = self._find_ids(entries)
    hashes = self._pool.hash.find([entry.hash or "" for entry in entries])
    # Ids and hashes as numbers: an entry's row mostly has both.
    row = np.array([e.row if self._is_inside(e.row) else -1 for e in entries], np.int64)
    sure = (row >= 0) & (hashes >= 0) & (self._pool.hash.codes[row] == hashes)
    sure &= (codes >= 0) & (self._pool.id.codes[row] == codes)
    alone = self._ids.count(codes) == 1
    for place, entry in enumerate(entries):
      code, digest = int(codes[place]), int(hashes[place])
      if sure[place]:
        self._take([entry.row])
      elif entry.row is not None or entry.hash is not None:
        self._find_exact(entry, place, code, digest)
      elif entry.text is not None and entry.id is None:
        self._records.append((entry, None))
      else:
        self._find_id(entry, code, alone[place])
    self._refuse(len(set(entries)))

  def compare(self, watch: Watch) -> None:
    """Takes the rows of records whose id is missing or stands for several rows."""
    if not self._records:
      return
    alike = Alike(self._pool, watch)
    named = {code for _, code in self._records if code is not None}
    alike.add({code: self._prefer(self._ids[code]) for code in named})
    if len(named) < len({code for _, code in self._records}):
      alone = (entry for entry, code in self._records if code is None)
      alike.add_nameless((entry.text, entry.image) for entry in alone)
    missing = 0
    for entry, code in self._records:
      found = alike.find(code, entry.text, entry.image)
      if found is not None:
        row = next((row for row in found if not self._taken[row]), None)
        self._take([] if row is None else [row])
      elif code is None:
        missing += 1
      else:
        self._take_all("ids", self._prefer(self._ids[code]))
    if missing:
      raise InputError(
        f"{self._option}: no row of the pool has the conversation of {missing:,} of its"
        " records, which have no id; give records of this pool, or rows, hashes or ids"
        " of pool.parquet."
      )
    self._counts.update(alike.count())

  def result(self, entries: int) -> Rows:
    notes = tuple(_describe(self._counts))
    return Rows(np.flatnonzero(self._taken), entries, self._repeated, notes)

  @functools.cached_property
  def _ids(self) -> _Places:
    return _Places(self._pool.id)

  @functools.cached_property
  def _hashes(self) -> _Places:
    return _Places(self._pool.hash)

  def _is_inside(self, row: int | None) -> bool:
    return row is not None and 0 <= row < len(self._pool)

  def _find_ids(self, entries: Sequence[Reference]) -> Int[np.ndarray, " n"]:
    codes = self._pool.id.find([entry.id or "" for entry in entries])
    codes[[entry.id is None for entry in entries]] = -1
    return codes

  def _prefer(self, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, " n"]:
    usable = rows if self._every else rows[self._pool.ok[rows]]
    return usable if len(usable) else rows

  def _take(self, rows: Sequence[int]) -> None:
    new = False
    for row in rows:
      new |= not self._taken[row]
      self._taken[row] = True
    self._repeated += not new

  def _take_all(self, kind: str, rows: Int[np.ndarray, " k"]) -> None:
    if len(rows) > 1 and not self._taken[rows].all():
      self._counts[kind] += 1
      self._counts[f"rows of {kind}"] += len(rows)
    self._take(rows)

  def _find_id(self, entry: Reference, code: int, alone: bool = False) -> None:
    if code < 0:
      self._unknown.append(entry.id)
      self._is_path |= entry.inline and "/" in entry.id
      return
    rows = self._ids[code] if alone else self._prefer(self._ids[code])
    if len(rows) > 1 and entry.text is not None and self._pool.ok[rows[0]]:
      self._records.append((entry, code))
    else:
      self._take_all("ids", rows)

  def _find_exact(self, entry: Reference, place: int, code: int, digest: int) -> None:
    pool, row = self._pool, entry.row
    if digest >= 0:
      same = self._hashes[digest]
      named = same[pool.id.codes[same] == code] if code >= 0 else same
      if row is None:
        self._take_all("hashes", named if len(named) else same)
        return
      if row in same and not len(named):
        named = np.array([row])  # its id was changed
      found = named if len(named) else same
      if row not in found:
        self._counts["moved"] += 1
        row = next((each for each in found if not self._taken[each]), found[0])
      self._take([row])
      return
    inside = self._is_inside(row)
    if row is None and entry.id is not None:
      self._counts["changed"] += code >= 0
      self._find_id(entry, code)
    elif inside and (
      entry.hash is None if entry.id is None else pool.id.codes[row] == code >= 0
    ):
      self._counts["changed"] += entry.hash is not None
      self._take([row])
    else:
      about = f", whose row {row:,} has the id {pool.id[row]!r}" if inside else ""
      if row is not None and not inside:
        about = f", which has {len(pool):,} rows"
      self._wrong.append(f"entry {place} ({_name(entry)}) is no row of the pool{about}")

  def _refuse(self, count: int) -> None:
    if self._wrong:
      raise InputError(
        f"{self._option}: {self._wrong[0]} ({len(self._wrong):,} such). It may be a"
        " list of another pool; give ids, row numbers or hashes of pool.parquet."
      )
    unknown = sorted(set(self._unknown))
    if not unknown:
      return
    some = ", ".join(repr(each[:80]) for each in unknown[:SHOWN])
    some += ", ..." if len(unknown) > SHOWN else ""
    many = f"{len(unknown):,} of the {count:,} ids:" if count > 1 else "the id"
    file = ", and there is no such file" if self._is_path else ""
    raise InputError(
      f"{self._option}: no row of the pool has {many} {some}{file}; ids, row numbers"
      " and hashes are in pool.parquet."
    )


def _split(text: str) -> list[str]:
  """The parts between commas; quotes hold an id with commas together."""
  if (inside := listing.read_brackets(text)) is not None:
    return inside
  parts = text.split(",")
  if '"' in text:
    with contextlib.suppress(csv.Error):  # a line break outside of quotes
      parts = next(csv.reader([text], skipinitialspace=True))
  return [part.strip() for part in parts if part.strip()]


def _read_bare(entry: Reference) -> Reference:
  """What a text that is no id says otherwise: `row=5`, `hash=...`, or outer blanks."""
  if entry != Reference(entry.id, inline=entry.inline) or entry.id is None:
    return entry
  text = entry.id.strip()
  kind, _, value = text.partition("=")
  if kind == "row" and value.isascii() and value.isdecimal():
    return Reference(row=int(value))
  if kind == "hash" and value:
    return Reference(hash=value)
  return Reference(text, inline=entry.inline)


def _name(entry: Reference) -> str:
  parts = zip(("id", "row", "hash"), entry[:3], strict=True)
  return ", ".join(f"{kind} {value!r}" for kind, value in parts if value is not None)


def _describe(counts: collections.Counter[str]) -> list[str]:
  """Notes on how rows were found, as far as there is something to say."""
  texts = {
    "ids": "ids that stand for several rows: {}; all of their {} rows are taken."
    f" {EXACT}",
    "hashes": "hashes of several equal rows: {}; all of their {} rows are taken.",
    "moved": "entries found by their hash, since the pool's rows have another order"
    " now: {}.",
    "changed": "entries whose hash no row of the pool has, found by their id: {}; the"
    " content of these rows was changed.",
    "alike": "records that fit several rows, the same in text and image name but not in"
    f" content: {{}}; the first of these rows are taken. {EXACT}",
    "renamed": "records found by their text alone, since their images have other names"
    " in the pool: {}.",
  }
  return [
    text.format(f"{counts[kind]:,}", f"{counts[f'rows of {kind}']:,}")
    for kind, text in texts.items()
    if counts[kind]
  ]
