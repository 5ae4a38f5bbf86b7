"""Finds the pool rows that the entries of a list refer to.

A row is identified by its number in the pool or the hash of its content. An id is only
a label, which several rows may share. If an entry has a number or a hash, that decides.
A whole record is compared with the records that have its id. A bare id refers to all
rows that have it; if there are several, a note says so.
"""

import collections
import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.data.pool.text_column import Text
from mllm_selector_jax.inputs.alike import Alike, Watch
from mllm_selector_jax.inputs.entry_texts import (
  describe_counts,
  name_entry,
  read_bare,
  split_text,
)
from mllm_selector_jax.inputs.lists import Reference
from mllm_selector_jax.types import InputError

SHOWN = 5  # entries that an error message names


class Rows(NamedTuple):
  """The rows that a list refers to.

  Attributes:
    rows: Pool row numbers, ascending, each once.
    entries: Number of entries in the list.
    repeated: Number of entries whose rows were all named by earlier entries.
    notes: Sentences about uncertain and missing matches.
    missing: Number of entries that match no row.
    scores: The score of each row, the highest if several entries name it; None if the
      list has none.
  """

  rows: Int[np.ndarray, " K"]
  entries: int
  repeated: int = 0
  notes: tuple[str, ...] = ()
  missing: int = 0
  scores: Float[np.ndarray, " K"] | None = None


@contextlib.contextmanager
def _watch_nothing(title: str) -> Iterator[Any]:
  yield lambda done, total: None


def find_rows(
  pool: PoolTable,
  entries: Sequence[Reference],
  option: str,
  watch: Watch = _watch_nothing,
  most_missing: float | None = None,
) -> Rows:
  """Find the rows that the entries of a list refer to.

  If an id, a hash or a record matches several rows, the rows that were set aside are
  skipped, unless all of them were set aside.

  Args:
    pool: The checked pool.
    entries: The entries, from `lists.read_references`.
    option: Name of the option that gave the list, for messages.
    watch: Shows the progress if records of the pool have to be read.
    most_missing: The share of the entries that may match no row, the setting
      `select.most_missing`; by default all have to match.

  Raises:
    InputError: More entries match no row of the pool.
  """
  search = _Search(pool, option, most_missing=most_missing)
  entries = search.split(entries)
  search.find(entries)
  search.compare(watch, entries)
  return search.result(len(entries))


def list_rows(
  pool: PoolTable, entries: Sequence[Reference], option: str
) -> list[Int[np.ndarray, " _"]]:
  """Find the rows of each entry separately, including rows that were set aside.

  Raises:
    InputError: An entry matches no row of the pool.
  """
  split_entries, row_lists = _Search(pool, option).split(entries), []
  for entry in split_entries:
    search = _Search(pool, option, with_unusable=True)
    search.find([entry])
    row_lists.append(search.result(1).rows)
  return row_lists


class _RowsOfText:
  """Looks up the rows that have a given text of a column, by its code."""

  def __init__(self, column: Text):
    codes = column.codes
    self._order = np.argsort(codes, kind="stable")
    all_codes = np.arange(codes.max(initial=-1) + 2)
    self._starts = np.searchsorted(codes[self._order], all_codes)

  def __getitem__(self, code: int) -> Int[np.ndarray, " k"]:
    return self._order[self._starts[code] : self._starts[code + 1]]

  def count(self, codes: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Count the rows that have each text; 0 for the code -1."""
    return np.where(codes < 0, 0, np.diff(self._starts)[codes])


class _Search:
  """Finds the rows of one list; `split`, `find` and `compare` are called in order."""

  def __init__(
    self,
    pool: PoolTable,
    option: str,
    with_unusable: bool = False,
    most_missing: float | None = None,
  ):
    self._pool, self._option, self._with_unusable = pool, option, with_unusable
    self._most_missing = most_missing
    self._nameless = 0  # records without an id that match no row
    self._score: float | None = None  # of the entry that is being looked up
    self._scores = np.full(len(pool), -np.inf)
    self._taken = np.zeros(len(pool), bool)
    self._counts: collections.Counter[str] = collections.Counter()
    self._repeated = 0
    self._unknown: list[str] = []
    self._is_path = False
    self._wrong: list[str] = []
    self._records: list[tuple[Reference, int | None]] = []

  def split(self, entries: Sequence[Reference]) -> list[Reference]:
    """Return the entries, with a text of several ids split into one entry per id."""
    split_entries = []
    for entry in entries:
      if entry.inline and self._pool.id.find([entry.id])[0] < 0:
        split_entries += [Reference(part, inline=True) for part in split_text(entry.id)]
      else:
        split_entries.append(entry)
    codes = self._find_ids(split_entries)
    return [
      read_bare(entry) if code < 0 else entry
      for entry, code in zip(split_entries, codes, strict=True)
    ]

  def find(self, entries: Sequence[Reference]) -> None:
    """Take the rows of all entries, except records that have to be compared."""
    codes = self._find_ids(entries)
    hashes = self._pool.hash.find([entry.hash or "" for entry in entries])
    # Compare ids and hashes as codes first: most entries have a row that has both.
    row = np.array([e.row if self._is_inside(e.row) else -1 for e in entries], np.int64)
    is_certain = (row >= 0) & (hashes >= 0) & (self._pool.hash.codes[row] == hashes)
    is_certain &= (codes >= 0) & (self._pool.id.codes[row] == codes)
    is_unique = self._ids.count(codes) == 1
    for number, entry in enumerate(entries):
      code, digest = int(codes[number]), int(hashes[number])
      self._score = entry.score
      if is_certain[number]:
        self._take([entry.row])
      elif entry.row is not None or entry.hash is not None:
        self._find_exact(entry, number, code, digest)
      elif entry.text is not None and entry.id is None:
        self._records.append((entry, None))
      else:
        self._find_id(entry, code, is_unique[number])
    self._refuse(entries)

  def compare(self, watch: Watch, entries: Sequence[Reference] = ()) -> None:
    """Take the rows of records whose id is missing or shared by several rows."""
    if not self._records:
      return
    alike = Alike(self._pool, watch)
    id_codes = {code for _, code in self._records if code is not None}
    alike.add({code: self._prefer(self._ids[code]) for code in id_codes})
    if len(id_codes) < len({code for _, code in self._records}):
      without_id = (entry for entry, code in self._records if code is None)
      alike.add_nameless((entry.text, entry.image) for entry in without_id)
    for entry, code in self._records:
      self._score = entry.score
      matches = alike.find(code, entry.text, entry.image)
      if matches is not None:
        row = next((row for row in matches if not self._taken[row]), None)
        self._take([] if row is None else [row])
      elif code is None:
        self._nameless += 1
      else:
        self._take_all("ids", self._prefer(self._ids[code]))
    self._refuse(entries)
    self._counts.update(alike.count())

  def result(self, entries: int) -> Rows:
    missing = self._missing()
    self._counts.update({"missing": missing, "rows of missing": missing and entries})
    notes, rows = tuple(describe_counts(self._counts)), np.flatnonzero(self._taken)
    scores = None if self._score is None else self._scores[rows]
    return Rows(rows, entries, self._repeated, notes, missing, scores)

  def _missing(self) -> int:
    return len(self._wrong) + len(self._unknown) + self._nameless

  @functools.cached_property
  def _ids(self) -> _RowsOfText:
    return _RowsOfText(self._pool.id)

  @functools.cached_property
  def _hashes(self) -> _RowsOfText:
    return _RowsOfText(self._pool.hash)

  def _is_inside(self, row: int | None) -> bool:
    return row is not None and 0 <= row < len(self._pool)

  def _find_ids(self, entries: Sequence[Reference]) -> Int[np.ndarray, " n"]:
    codes = self._pool.id.find([entry.id or "" for entry in entries])
    codes[[entry.id is None for entry in entries]] = -1
    return codes

  def _prefer(self, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, " n"]:
    usable = rows if self._with_unusable else rows[self._pool.ok[rows]]
    return usable if len(usable) else rows

  def _take(self, rows: Sequence[int] | Int[np.ndarray, " k"]) -> None:
    new = False
    for row in rows:
      new |= not self._taken[row]
      self._taken[row] = True
      if self._score is not None:
        self._scores[row] = max(self._scores[row], self._score)
    self._repeated += not new

  def _take_all(self, kind: str, rows: Int[np.ndarray, " k"]) -> None:
    if len(rows) > 1 and not self._taken[rows].all():
      self._counts[kind] += 1
      self._counts[f"rows of {kind}"] += len(rows)
    self._take(rows)

  def _find_id(self, entry: Reference, code: int, is_unique: bool = False) -> None:
    if code < 0:
      self._unknown.append(entry.id)
      self._is_path |= entry.inline and "/" in entry.id
      return
    rows = self._ids[code] if is_unique else self._prefer(self._ids[code])
    if len(rows) > 1 and entry.text is not None and self._pool.ok[rows[0]]:
      self._records.append((entry, code))
    else:
      self._take_all("ids", rows)

  def _find_exact(self, entry: Reference, number: int, code: int, digest: int) -> None:
    pool, row = self._pool, entry.row
    if digest >= 0:
      same_hash = self._hashes[digest]
      same_id = same_hash[pool.id.codes[same_hash] == code] if code >= 0 else same_hash
      if row is None:
        self._take_all("hashes", same_id if len(same_id) else same_hash)
        return
      if row in same_hash and not len(same_id):
        same_id = np.array([row])  # the id of this row was changed
      candidates = same_id if len(same_id) else same_hash
      if row not in candidates:
        self._counts["moved"] += 1
        row = next(
          (candidate for candidate in candidates if not self._taken[candidate]),
          candidates[0],
        )
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
      self._wrong.append(
        f"entry {number} ({name_entry(entry)}) is no row of the pool{about}"
      )

  def _refuse(self, entries: Sequence[Reference]) -> None:
    """Raise an InputError if more entries are missing than may be."""
    missing, count = self._missing(), len(entries)
    allowed = int((self._most_missing or 0.0) * count)
    if missing <= allowed:
      return
    told = ""
    if self._most_missing is not None:
      told = (
        f" Of {count:,} entries {missing:,} match no row ({missing / count:.2%}), and"
        f" select.most_missing={self._most_missing:g} allows {allowed:,}."
      )
    raise InputError(self._describe_missing(entries) + told)

  def _describe_missing(self, entries: Sequence[Reference]) -> str:
    if self._wrong:
      return (
        f"{self._option}: {self._wrong[0]} ({len(self._wrong):,} such). It may be a"
        " list of another pool; give ids, row numbers or hashes of pool.parquet."
      )
    if not self._unknown:
      return (
        f"{self._option}: no row of the pool has the conversation of"
        f" {self._nameless:,} of its records, which have no id; give records of this"
        " pool, or rows, hashes or ids of pool.parquet."
      )
    unknown, count = sorted(set(self._unknown)), len(set(entries))
    examples = ", ".join(repr(text[:80]) for text in unknown[:SHOWN])
    examples += ", ..." if len(unknown) > SHOWN else ""
    subject = f"{len(unknown):,} of the {count:,} ids:" if count > 1 else "the id"
    file = ", and there is no such file" if self._is_path else ""
    numbers = all(text.isascii() and text.isdecimal() for text in unknown)
    rows = (
      " If the numbers of a file are row numbers, write FILE#row." if numbers else ""
    )
    return (
      f"{self._option}: no row of the pool has {subject} {examples}{file}; ids, row"
      f" numbers and hashes are in pool.parquet.{rows}"
    )
