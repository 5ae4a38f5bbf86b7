"""Chooses the rows of the explorer, and reads what it shows of them."""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.data import formats
from mllm_selector_jax.data.images.image_folders import AnyFolders
from mllm_selector_jax.pages import findings, picks, projection, samples, tables
from mllm_selector_jax.pages.gather import Pool, Selection
from mllm_selector_jax.scoring.score_table import read_scores

MOST_ALL = 20_000  # rows of a pool that are all shown
SAMPLED = 5_000  # rows shown of a larger pool
MOST_PICTURES = 1_200  # different images that get a thumbnail
THUMBNAIL = 256  # pixels of the longer side, at most
MOST_TEXT_BYTES = 8_000_000  # of the texts of all rows
TEXT_LENGTHS = (300, 150, 80, 40)  # characters of a turn; the first that fits is taken
STATES = ("kept", "kept, but doubtful", "suspect", "not kept", "usable", "set aside")


class Texts(NamedTuple):
  """What is read from the records.

  Attributes:
    turns: For each row, its turns as pairs of a role and a text.
    more: For each row, the number of rounds that are left out.
    pictures: Data URIs.
    places: For each row, indices in `pictures`.
  """

  turns: list[list[tuple[str, str]]]
  more: list[int]
  pictures: list[str]
  places: list[list[int]]


def find_states(pool: Pool, selection: Selection | None) -> Int[np.ndarray, " N"]:
  """Return the index in `STATES` of each row's state."""
  states = np.full(pool.rows, STATES.index("usable"))
  if selection is not None:
    states[:] = STATES.index("not kept")
    states[findings.is_suspect(selection)] = STATES.index("suspect")
    states[selection.kept] = STATES.index("kept")
    states[findings.is_doubtful(selection)] = STATES.index("kept, but doubtful")
  states[pool.aside] = STATES.index("set aside")
  return states


def choose_rows(states: Int[np.ndarray, " N"]) -> Int[np.ndarray, " n"]:
  """Choose the rows to show: all of a small pool, or a sample.

  Of a sample, at most half are kept rows and a quarter suspects; where there are fewer,
  others take their places. Each kind is drawn at random, in the same way every time.

  Returns:
    Pool rows, the kept ones first, each kind ascending.
  """
  kept, suspect = states <= 1, states == STATES.index("suspect")
  rows = [picks.shuffled(where) for where in (kept, suspect, ~kept & ~suspect)]
  if len(states) > MOST_ALL:
    counts = [min(len(rows[0]), SAMPLED // 2), min(len(rows[1]), SAMPLED // 4)]
    counts.append(min(len(rows[2]), SAMPLED - sum(counts)))
    # Where the others are too few, more kept rows are shown.
    counts[0] = min(len(rows[0]), SAMPLED - counts[1] - counts[2])
    rows = [part[:count] for part, count in zip(rows, counts, strict=True)]
  return np.concatenate([np.sort(part) for part in rows])


def order_pictures(
  rows: Int[np.ndarray, " n"], states: Int[np.ndarray, " N"]
) -> Int[np.ndarray, " n"]:
  """Order the shown rows by who gets a thumbnail first: the states take turns."""
  of_state = [rows[states[rows] == state] for state in range(len(STATES))]
  mixed = [part[np.argsort(picks.mix(part), kind="stable")] for part in of_state]
  turns = itertools.zip_longest(*(part.tolist() for part in mixed), fillvalue=-1)
  order = np.array([row for turn in turns for row in turn if row >= 0], np.int64)
  return order


def read_texts(
  pool: Pool,
  rows: Int[np.ndarray, " n"],
  first: Int[np.ndarray, " n"],
  images: AnyFolders,
  budget: int,
) -> tuple[Texts, dict[int, dict[str, Any]]]:
  """Read turns and thumbnails of rows, and their lines of `pool.parquet`.

  The records are read in the order of the pool, since a row group of Parquet is read as
  a whole.

  Args:
    pool: The checked pool.
    rows: The rows.
    first: The same rows, those that get a thumbnail first at the front.
    images: The pool's image folders; None shows no images.
    budget: Bytes of all thumbnails together.
  """
  columns = (*samples.COLUMNS, "hash", "image_hashes")
  records = tables.read_rows(pool.path, rows, columns)
  files, wanted = formats.OpenFiles(), _choose_pictures(records, first)
  thumbnails: dict[Any, str] = {}
  turns: dict[int, tuple[list[tuple[str, str]], int]] = {}
  for row in np.sort(rows).tolist():
    turns[row] = samples.read_turns(records[row], files)
    if images is not None and wanted.get(row):
      found = samples.find_pictures(records[row], files)
      for place, key in wanted[row]:
        if key not in thumbnails and place < len(found):
          uri, _ = samples.make_thumbnail(images, found[place], THUMBNAIL, "webp")
          thumbnails[key] = uri or ""
  pictures, index = _fit(thumbnails, wanted, first, budget)
  return Texts(
    _shorten([turns[row][0] for row in rows.tolist()]),
    [turns[row][1] for row in rows.tolist()],
    pictures,
    [
      [index[key] for _, key in _name_pictures(records[row]) if key in index]
      for row in rows.tolist()
    ],
  ), records


def _name_pictures(record: dict[str, Any]) -> list[tuple[int, Any]]:
  """Return place and identity of a row's first images; equal images have one."""
  names, hashes = record.get("images") or [], record.get("image_hashes") or []
  return [
    (place, hashes[place] if place < len(hashes) and hashes[place] else (name,))
    for place, name in enumerate(names[: samples.MOST_PICTURES])
  ]


def _choose_pictures(
  records: dict[int, dict[str, Any]], first: Int[np.ndarray, " n"]
) -> dict[int, list[tuple[int, Any]]]:
  """Choose the rows whose images are read; the keys are in the order of `first`."""
  wanted: dict[int, list[tuple[int, Any]]] = {}
  different: set[Any] = set()
  for row in first.tolist():
    named = _name_pictures(records[row])
    if len(different | {key for _, key in named}) > MOST_PICTURES:
      break
    different.update(key for _, key in named)
    wanted[row] = named
  return wanted


def _fit(
  thumbnails: dict[Any, str],
  wanted: dict[int, list[tuple[int, Any]]],
  first: Int[np.ndarray, " n"],
  budget: int,
) -> tuple[list[str], dict[Any, int]]:
  """Take thumbnails as long as they fit, and return the place of each."""
  pictures: list[str] = []
  index: dict[Any, int] = {}
  for row in first.tolist():
    for _, key in wanted.get(row, ()):
      uri = thumbnails.get(key)
      if uri and key not in index and len(uri) <= budget:
        index[key] = len(pictures)
        pictures.append(uri)
        budget -= len(uri)
  return pictures, index


def _shorten(turns: list[list[tuple[str, str]]]) -> list[list[tuple[str, str]]]:
  """Cut all turns to the longest length of `TEXT_LENGTHS` with which they fit."""
  for length in TEXT_LENGTHS:
    short = [[(who, samples.cut(text, length)) for who, text in row] for row in turns]
    size = sum(len(text.encode()) for row in short for _, text in row)
    if size <= MOST_TEXT_BYTES:
      break
  return short


def place_rows(
  workdir: Path, rows: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n C"] | None, list[float]]:
  """Project the embeddings of the shown rows.

  Returns:
    The coordinates, NaN for rows without a finite embedding, and the share of the
    variance of each component; None and no shares without embeddings.
  """
  if not any((workdir / "scores").glob("part-*.parquet")):
    return None, []
  with tables.damage_named(workdir / "scores"):
    table = read_scores(workdir / "scores")
    line = np.minimum(np.searchsorted(table.row, rows), len(table.row) - 1)
    has_line = table.row[line] == rows if len(table.row) else np.zeros(len(rows), bool)
    vectors = table.read_embeddings(line[has_line])
  finite = np.isfinite(vectors).all(1)
  projected = projection.project(vectors[finite])
  if projected is None:
    return None, []
  places = np.full((len(rows), projected.places.shape[1]), np.nan)
  places[_refine(has_line, finite)] = projected.places
  return places, projected.shares


def _refine(
  where: Bool[np.ndarray, " n"], inner: Bool[np.ndarray, " k"]
) -> Int[np.ndarray, " m"]:
  """Return the marked places of the marked places."""
  return np.flatnonzero(where)[inner]
