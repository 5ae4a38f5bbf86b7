"""The score table: parts of all passes joined, one line a scored row, read back."""

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
from mllm_selector_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class Scored:
  """Scored rows in memory, but for their embeddings.

  Attributes:
    columns: a pyarrow table of all columns but row and id; "hash" among them.
    row: the pool row of each line.
    embeddings: arrays of which each line has one row, mostly kept on disk.
    file, place: in which of them, and which row of it.
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
  wanted: Iterable[str],
) -> Scored:
  """Joins the parts of the passes to lines; control passes come in by their row.

  Args:
    folders: of each pass's parts, "main" among them.
    counts: parts of each pass.
    pool: the checked pool.
    tuned: rows that the seed model was tuned on: marked.
    wanted: signals that become columns; the loss always does.
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
    place = np.searchsorted(row[order], control["row"].to_numpy())
    controls[name] = np.empty(len(row))
    controls[name][order[place]] = control["loss"].to_numpy()
  sums = {name: main[name].to_numpy() for name in signals.MEANS.values()}
  supervised = main["supervised"].to_numpy()
  made = signals.sample_columns(sums, supervised, controls)
  if "visual" in made:
    made["visual"] = np.where(pool.has_image[row], made["visual"], 0.0)
  plugged = signals.find_plugged(wanted)
  own = {name: main[name].to_numpy() for name in plugged if plugged[name].tokens}
  made |= signals.plugged_columns(plugged, own, supervised, made)
  names = [name for name in signals.SIGNALS if name in {*wanted, "loss"}]
  names += plugged
  columns = pa.table(
    {
      "hash": pa.array(pool.hash[row], pa.string()),
      "supervised": pa.array(supervised),
      **{name: pa.array(made[name]) for name in names},
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
  """Writes `part-*.parquet` and `embeddings/part-*.npy`, in pool order.

  Args:
    folder: where to.
    scored: lines, in any order; each pool row once.
    ids: of every pool row.
    part_rows: lines a part.

  Returns:
    Whether the loss is finite, a line, in pool order.
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
    here = slice(start, start + part_rows)
    name = f"part-{number:05d}"
    lines = columns.slice(start, part_rows)
    first = {"row": pa.array(row[here], pa.int64()), "id": pa.array(ids[row[here]])}
    whole = {**first, **{key: lines[key] for key in lines.column_names}}
    artifacts.write_table(folder / f"{name}.parquet", pa.table(whole))
    data = io.BytesIO()
    np.save(data, _gather(arrays, file[here], place[here]), allow_pickle=False)
    artifacts.write_bytes(folder / "embeddings" / f"{name}.npy", data.getvalue())
  return np.isfinite(columns["loss"].to_numpy())


def _gather(arrays, file, place) -> Float[np.ndarray, "n E"]:
  width = arrays[0].shape[1] if arrays else 0
  out = np.empty((len(file), width), np.float32)
  for number in np.unique(file):
    own = file == number
    out[own] = arrays[number][place[own]]
  return out


@dataclasses.dataclass(frozen=True)
class ScoreTable:
  """Scores of the rows of a pool.

  Attributes:
    row: pool rows, ascending.
    columns: every numeric column by name.
    folder: of the parts.
  """

  row: Int[np.ndarray, " n"]
  columns: dict[str, np.ndarray]
  folder: Path

  def signal(self, name: str) -> Shaped[np.ndarray, " n"]:
    """A column by its name.

    Raises:
      InputError: there is none; those that are there are named.
    """
    if name not in self.columns:
      raise InputError(
        f"The score table has no signal {name!r}; it has"
        f" {', '.join(sorted(self.columns))}."
      )
    return self.columns[name]

  def embeddings(self) -> Float[np.ndarray, "n E"]:
    """The embedding of every row, float32."""
    return np.concatenate(
      [np.load(p, allow_pickle=False) for p in _stored(self.folder)]
    )


def read_scores(folder: Path) -> ScoreTable:
  """Reads the parts of a score table; parts ascend in pool rows."""
  table = read_lines(folder)
  numeric = {name: table[name].to_numpy() for name in _list_numeric(table.schema)}
  return ScoreTable(table["row"].to_numpy(), numeric, folder)


def list_columns(folder: Path) -> list[str]:
  """Names of the numeric columns of a score table, by its first part.

  Raises:
    InputError: there is no part, or it is damaged.
  """
  import pyarrow as pa
  import pyarrow.parquet as pq

  try:
    return _list_numeric(pq.read_schema(_list_parts(folder)[0]))
  except (pa.ArrowException, OSError) as error:
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
  """All columns of a score table, as a pyarrow table."""
  import pyarrow as pa
  import pyarrow.parquet as pq

  return pa.concat_tables(
    [
      pq.read_table(path, page_checksum_verification=True)
      for path in _list_parts(folder)
    ]
  )


def read_carried(folder: Path, pool: Any, ok: Bool[np.ndarray, " N"]) -> Scored:
  """The lines of an earlier table whose rows, by content, are in the pool.

  Args:
    folder: of the earlier table.
    pool: the checked pool now.
    ok: rows that are to be scored.

  Raises:
    InputError: it is no score table, or its embeddings are of other lines.
  """
  lines = read_lines(folder)
  usable = np.flatnonzero(ok)
  taken = _match(lines["hash"].to_pylist(), pool.hash[usable])
  rows, taken = usable[taken >= 0], taken[taken >= 0]
  arrays = [np.load(p, mmap_mode="r", allow_pickle=False) for p in _stored(folder)]
  arrays = arrays or [np.empty((len(lines), 0), np.float32)]
  if sum(map(len, arrays)) != len(lines):
    raise InputError(
      f"{folder} has {len(lines):,} lines, but {sum(map(len, arrays)):,} embeddings."
    )
  ends = np.cumsum([len(array) for array in arrays])
  file = np.searchsorted(ends, taken, side="right")
  return Scored(
    lines.take(taken).drop_columns(["row", "id"]),
    rows,
    arrays,
    file,
    taken - np.concatenate([[0], ends])[file],
  )


def _match(lines: list[str], wanted: Iterable[str]) -> Int[np.ndarray, " n"]:
  """The line of each wanted hash, -1 for none; of copies the first has the first.

  Copies of one content differ in `seed`, and may be more here than there.
  """
  places: dict[str, list[int]] = collections.defaultdict(list)
  for place in range(len(lines) - 1, -1, -1):
    places[lines[place]].append(place)
  found = []
  for value in wanted:
    left = places.get(value, [-1])
    found.append(left.pop() if len(left) > 1 else left[0])
  return np.array(found, np.int64)


def read_elsewhere(
  folder: Path, pool: Any, ok: Bool[np.ndarray, " N"], wanted: Iterable[str]
) -> Scored:
  """`read_carried` of a table that is to hold every row that can be used.

  Args:
    folder: of a table that some other run made.
    pool: the checked pool.
    ok: rows that can be used.
    wanted: signals that it must have.

  Raises:
    InputError: it is not a score table, lacks a column, or was made of other rows.
  """
  import pyarrow as pa

  try:
    names = read_lines(folder).column_names
    needed = ["hash", "supervised", "loss", "seed", *wanted]
    if missing := [name for name in dict.fromkeys(needed) if name not in names]:
      raise InputError(
        f"score.table={folder} lacks the columns {', '.join(missing)}; it has"
        f" {', '.join(names)}. Score again with them, or name other score.signals."
      )
    scored = read_carried(folder, pool, ok)
  except (pa.ArrowInvalid, OSError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(
      f"score.table={folder} is damaged, or no score table: {error}"
    ) from error
  unscored = np.setdiff1d(np.flatnonzero(ok), scored.row)
  if len(unscored):
    row = int(unscored[0])
    raise InputError(
      f"score.table={folder} has no scores of {len(unscored):,} of the"
      f" {int(ok.sum()):,} usable rows, by the hash of their content: row {row}"
      f" (id {pool.id[row]}) is the first. It was made from another pool; give one of"
      " this pool, or leave score.table out to score it here."
    )
  return scored


def _stored(folder: Path) -> list[Path]:
  return sorted((folder / "embeddings").glob("part-*.npy"))
