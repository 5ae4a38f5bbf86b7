"""Keeps what is known of each image or row of a large pool outside of memory."""

import sqlite3
import threading
from collections.abc import Iterator

from mllm_selector_jax.types import RunError

CACHE = 32 << 10  # KiB of a table that stay in memory


class DiskTable:
  """Texts by key, in memory that does not grow with their number.

  A table is a temporary database of SQLite. What exceeds `CACHE` goes to a file without
  a name, in the folder of SQLITE_TMPDIR or TMPDIR, or in /var/tmp. The file is
  gone when the process ends, in whatever way. Several threads may use one table.

  Every method raises RunError if the file cannot be written or read.
  """

  def __init__(self):
    self._lock = threading.Lock()
    self._database = sqlite3.connect("", check_same_thread=False)
    for statement in (
      "PRAGMA journal_mode = OFF",
      "PRAGMA synchronous = OFF",
      f"PRAGMA cache_size = {-CACHE}",
      "CREATE TABLE texts (key BLOB PRIMARY KEY, text TEXT) WITHOUT ROWID",
    ):
      self._run(statement)

  def add(self, key: str, text: str = "") -> bool:
    """Adds a text, unless the key has one already; returns whether it was added."""
    values = _encode(key), text
    return self._run("INSERT OR IGNORE INTO texts VALUES (?, ?)", values)[1] == 1

  def get(self, key: str) -> str | None:
    """Returns the text of a key; None if it has none."""
    rows, _ = self._run("SELECT text FROM texts WHERE key = ?", (_encode(key),))
    return rows[0][0] if rows else None

  def __contains__(self, key: str) -> bool:
    return self.get(key) is not None

  def __len__(self) -> int:
    return self._run("SELECT count(*) FROM texts")[0][0][0]

  def __iter__(self) -> Iterator[str]:
    """Yields the keys in ascending order, as `sorted` has them."""
    last = b""
    while True:
      found, _ = self._run(
        "SELECT key FROM texts WHERE key >= ? ORDER BY key LIMIT 1000", (last,)
      )
      for (key,) in found:
        yield _decode(key)
      if not found:
        return
      last = found[-1][0] + b"\0"  # the least key that is greater

  def close(self) -> None:
    """Drops the table and its file."""
    self._database.close()

  __del__ = close

  def _run(self, statement: str, values: tuple = ()) -> tuple[list[tuple], int]:
    """Returns the rows that a statement finds, and how many it changes."""
    with self._lock:
      try:
        cursor = self._database.execute(statement, values)
        return cursor.fetchall(), cursor.rowcount
      except sqlite3.Error as error:
        raise RunError(
          f"What is known of the pool's images and rows exceeds {CACHE >> 10} MiB, and"
          f" could not be kept in a temporary file ({error}). Make room in the folder"
          " for temporary files, or name another one by the environment variable"
          " SQLITE_TMPDIR."
        ) from error


def _encode(key: str) -> bytes:
  # Records may hold lone surrogates. The order of these bytes is that of the texts.
  return key.encode("utf-8", "surrogatepass")


def _decode(key: bytes) -> str:
  return key.decode("utf-8", "surrogatepass")
