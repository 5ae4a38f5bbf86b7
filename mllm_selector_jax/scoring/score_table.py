"""Joins the parts of all passes into the score table, and reads score tables."""

import collections
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from mllm_selector_jax.data.pool.text_column import Text
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.scoring import score_parts, signals
from mllm_selector_jax.scoring.stored_embeddings import map_stored
from mllm_selector_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class Scored:
  """Scored rows; their embeddings may stay on disk.

  Attributes:
    columns: A pyarrow table of all columns except row and id, including "hash".
    row: The pool row of each line.
    embeddings: Arrays [m, E], mostly memory-mapped, that hold the embeddings.
    file: For each line, the index of the array in `embeddings`.
    place: For each line, the row of that array.
  """

  columns: Any
  row: Int[np.ndarray, " n"]
  embeddings: list[np.ndarray]
  file: Int[np.ndarray, " n"]
  place: Int[np.ndarray, " n"]


def read_passes(
  folders: dict[str, Path],
  counts: dict[str, int],
  pool: Any,
  tuned: Int[np.ndarray, " k"],
  requested: Iterable[str],
) -> Scored:
  """Join the parts of all passes; control passes are matched by pool row.

  Args:
    folders: The folder of each pass, including "main".
    counts: The number of parts of each pass.
    pool: The checked pool.
    tuned: Pool rows that the seed model was tuned on, marked in the column "seed".
    requested: Signals to make columns of; the loss always becomes one.
  """
  import pyarrow as pa

  parts = list(score_parts.read_parts(folders["main"], counts["main"]))
  tables = [table for table, _ in parts]
  embeddings = [array for _, array in parts if array is not None]
  assert len(embeddings) == len(tables), "every part of the main pass has embeddings"
  main = pa.concat_tables(tables)
  row = main["row"].to_numpy()
  order = np.argsort(row)
  controls = {}
  for name in folders.keys() - {"main"}:
    control = pa.concat_tables(
      [t for t, _ in score_parts.read_parts(folders[name], counts[name])]
    )
    index = np.searchsorted(row[order], control["row"].to_numpy())
    controls[name] = np.empty(len(row))
    controls[name][order[index]] = control["loss"].to_numpy()
  sums = {name: main[name].to_numpy() for name in signals.MEANS.values()}
  supervised = main["supervised"].to_numpy()
  signal_columns = signals.sample_columns(sums, supervised, controls)
  if "visual" in signal_columns:
    signal_columns["visual"] = np.where(
      pool.has_image[row], signal_columns["visual"], 0.0
    )
  plugged = signals.find_plugged(requested)
  plugged_sums = {
    name: main[name].to_numpy() for name in plugged if plugged[name].tokens
  }
  signal_columns |= signals.plugged_columns(
    plugged, plugged_sums, supervised, signal_columns
  )
  names = [name for name in signals.SIGNALS if name in {*requested, "loss"}]
  names += plugged
  columns = pa.table(
    {
      "hash": pa.array(pool.hash[row], pa.string()),
      "supervised": pa.array(supervised),
      **{name: pa.array(signal_columns[name]) for name in names},
      "turn_losses": main["turn_losses"],
      "seed": pa.array(np.isin(row, tuned)),
    }
  )
  sizes = [table.num_rows for table in tables]
  return Scored(
    columns,
    row,
    embeddings,
    file=np.repeat(np.arange(len(sizes)), sizes),
    place=np.concatenate([np.arange(size) for size in sizes]),
  )


def write_table(
  folder: Path, scored: list[Scored], ids: np.ndarray | Text[str], part_rows: int
) -> Bool[np.ndarray, " n"]:
  """Write `part-*.parquet` and `embeddings/part-*.npy`, in pool order.

  Args:
    folder: The folder to write into.
    scored: Scored rows, in any order; each pool row at most once.
    ids: The id of every pool row.
    part_rows: How many lines a part has.

  Returns:
    A mask that says for each line, in pool order, whether its loss is finite.
  """
  import pyarrow as pa

  row = np.concatenate([part.row for part in scored])
  order = np.argsort(row, kind="stable")
  row = row[order]
  assert (np.diff(row) > 0).all(), "a row was scored twice"
  columns = pa.concat_tables([part.columns for part in scored]).take(order)
  arrays = [array for part in scored for array in part.embeddings]
  shift = np.cumsum([0, *(len(part.embeddings) for part in scored)])
  file = np.concatenate([p.file + s for p, s in zip(scored, shift, strict=False)])
  file, place = file[order], np.concatenate([part.place for part in scored])[order]
  (folder / "embeddings").mkdir(exist_ok=True)
  for number, start in enumerate(range(0, len(row), part_rows)):
    part_slice = slice(start, start + part_rows)
    name = f"part-{number:05d}"
    lines = columns.slice(start, part_rows)
    first = {
      "row": pa.array(row[part_slice], pa.int64()),
      "id": pa.array(ids[row[part_slice]]),
    }
    written = {**first, **{key: lines[key] for key in lines.column_names}}
    artifacts.write_table(folder / f"{name}.parquet", pa.table(written))
    data = io.BytesIO()
    np.save(
      data, _gather(arrays, file[part_slice], place[part_slice]), allow_pickle=False
    )
    artifacts.write_bytes(folder / "embeddings" / f"{name}.npy", data.getvalue())
  return np.isfinite(columns["loss"].to_numpy())


def _locate(arrays, lines) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
  """Return for each line the index of its array and its row there."""
  starts = np.cumsum([0, *map(len, arrays)])
  file = np.searchsorted(starts[1:], lines, side="right")
  return file, lines - starts[file]


def _gather(arrays, file, place) -> Float[np.ndarray, "n E"]:
  width = arrays[0].shape[1] if arrays else 0
  out = np.empty((len(file), width), np.float32)
  for number in np.unique(file):
    lines = file == number
    out[lines] = arrays[number][place[lines]]
  return out


@dataclasses.dataclass(frozen=True)
class ScoreTable:
  """Scores of the rows of a pool.

  Attributes:
    row: Pool row numbers, ascending.
    columns: Numeric columns by name, aligned with `row`.
    folder: The folder of the parts.
  """

  row: Int[np.ndarray, " n"]
  columns: dict[str, np.ndarray]
  folder: Path

  def signal(self, name: str) -> Shaped[np.ndarray, " n"]:
    """Return a column by its name.

    Raises:
      InputError: The table has no such column.
    """
    if name not in self.columns:
      raise InputError(
        f"The score table has no signal {name!r}; it has"
        f" {', '.join(sorted(self.columns))}."
      )
    return self.columns[name]

  def map_embeddings(self) -> list[Float[np.ndarray, "_ E"]]:
    """Map the embeddings into memory: an array for each part."""
    return map_stored(self.folder)

  def read_embeddings(self, lines: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k E"]:
    """Read the embeddings of some lines, float32, without reading all the others."""
    if not (arrays := self.map_embeddings()):
      return np.empty((len(lines), 0), np.float32)
    return _gather(arrays, *_locate(arrays, lines))


def read_scores(folder: Path) -> ScoreTable:
  """Read the numeric columns of a score table."""
  table = read_lines(folder)
  numeric = {name: table[name].to_numpy() for name in _list_numeric(table.schema)}
  return ScoreTable(table["row"].to_numpy(), numeric, folder)


def list_columns(folder: Path) -> list[str]:
  """Read the names of the numeric columns from the first part of a score table.

  Raises:
    InputError: There is no part, or it is damaged.
  """
  import pyarrow as pa
  import pyarrow.parquet as pq

  first = _list_parts(folder)[0]
  try:
    return _list_numeric(pq.read_schema(first))
  except (pa.ArrowException, OSError, ValueError) as error:  # a name may be no UTF-8
    raise InputError(f"{folder} is damaged, or no score table: {error}") from error


def _list_numeric(schema: Any) -> list[str]:
  import pyarrow as pa

  return [
    field.name
    for field in schema
    if field.name != "row"
    and not pa.types.is_string(field.type)
    and not pa.types.is_list(field.type)
  ]


def _list_parts(folder: Path) -> list[Path]:
  paths = sorted(folder.glob("part-*.parquet"))
  if not paths:
    raise InputError(f"{folder} holds no score table; run `mllm-selector score` first.")
  return paths


def read_lines(folder: Path) -> Any:
  """Read all columns of a score table, as a pyarrow table."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  return pa.concat_tables(
    [
      pq.read_table(path, page_checksum_verification=True)
      for path in _list_parts(folder)
    ]
  )


def read_carried(folder: Path, pool: Any, ok: Bool[np.ndarray, " N"]) -> Scored:
  """Read the lines of an earlier table whose rows, by content hash, are in the pool.

  Args:
    folder: The folder of the earlier table.
    pool: The checked pool.
    ok: Mask of the pool rows to be scored.

  Raises:
    InputError: The folder holds no score table, or the numbers of lines and of
      embeddings differ.
  """
  lines = read_lines(folder)
  usable = np.flatnonzero(ok)
  taken = _match(lines["hash"].to_pylist(), pool.hash[usable])
  rows, taken = usable[taken >= 0], taken[taken >= 0]
  arrays = map_stored(folder) or [np.empty((len(lines), 0), np.float32)]
  if sum(map(len, arrays)) != len(lines):
    raise InputError(
      f"{folder} has {len(lines):,} lines, but {sum(map(len, arrays)):,} embeddings."
    )
  columns = lines.take(taken).drop_columns(["row", "id"])
  return Scored(columns, rows, arrays, *_locate(arrays, taken))


def _match(lines: list[str], hashes: Iterable[str]) -> Int[np.ndarray, " n"]:
  """Find the line of each hash, or -1.

  Copies of the same content are matched in order, since they may differ in the column
  `seed`. If there are more copies than lines, the rest take the last line.
  """
  lines_of: dict[str, list[int]] = collections.defaultdict(list)
  for line in range(len(lines) - 1, -1, -1):
    lines_of[lines[line]].append(line)
  matches = []
  for value in hashes:
    unused = lines_of.get(value, [-1])
    matches.append(unused.pop() if len(unused) > 1 else unused[0])
  return np.array(matches, np.int64)


def read_elsewhere(
  folder: Path, pool: Any, ok: Bool[np.ndarray, " N"], required: Iterable[str]
) -> Scored:
  """Read the scores of all usable rows from the table of another run.

  Args:
    folder: The folder of that table.
    pool: The checked pool.
    ok: Mask of the usable pool rows.
    required: Signals that the table must have.

  Raises:
    InputError: The folder holds no score table, a column is missing, or a usable row
      has no line.
  """
  import pyarrow as pa

  try:
    names = read_lines(folder).column_names
    needed = ["hash", "supervised", "loss", "seed", *required]
    if missing := [name for name in dict.fromkeys(needed) if name not in names]:
      raise InputError(
        f"score.table={folder} lacks the columns {', '.join(missing)}; it has"
        f" {', '.join(names)}. Score again with them, or name other score.signals."
      )
    scored = read_carried(folder, pool, ok)
  except (pa.ArrowException, OSError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(
      f"score.table={folder} is damaged, or no score table: {error}"
    ) from error
  unscored = np.setdiff1d(np.flatnonzero(ok), scored.row)
  if len(unscored):
    row = int(unscored[0])
    raise InputError(
      f"score.table={folder} has no scores for {len(unscored):,} of the"
      f" {int(ok.sum()):,} usable rows, compared by content hash; the first is row"
      f" {row} (id {pool.id[row]}). It was made from another pool; give a table of this"
      " pool, or leave score.table out to score the pool in this run."
    )
  return scored
