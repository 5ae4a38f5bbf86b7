"""The pass over the pool: every row exactly once, in parts that resume.

A part is a run of consecutive pool rows, packed among themselves, so that a
row's part does not depend on the rows after it. A part's files are written
before its journal entry; an interrupted pass goes on with the parts that have
none, and gives the same files as an unbroken one.
"""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from mllm_selector_jax import artifacts, losses, sharding
from mllm_selector_jax.data import loader, packing
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.scoring import signals
from mllm_selector_jax.types import Batch, InputError, Params, Stopped

JOURNAL = "journal"


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
  """How a pool is scored; none of it changes a score beyond rounding.

  Attributes:
    row_length: tokens of a packed row.
    batch_rows: packed rows a step.
    part_rows: pool rows a part.
    threads: that read ahead.
    seed: of the embedding's projection.
    signals: columns of the table, of `signals.SIGNALS`; the loss always is one.
  """

  row_length: int = 2048
  batch_rows: int = 16
  part_rows: int = 8192
  threads: int = 2
  seed: int = 0
  signals: tuple[str, ...] = signals.SIGNALS

  def __post_init__(self):
    for name in ("row_length", "batch_rows", "part_rows"):
      if getattr(self, name) < 1:
        raise InputError(f"score.{name}={getattr(self, name)}: it must be 1 or more.")
    unknown = sorted(set(self.signals) - set(signals.SIGNALS))
    if unknown:
      raise InputError(
        f"score.signals names {unknown[0]!r}; there are {', '.join(signals.SIGNALS)}."
      )


@dataclasses.dataclass(frozen=True)
class Part:
  """Consecutive scored rows and the steps that score them."""

  number: int
  rows: Int[np.ndarray, " n"]
  steps: list[packing.Rows]


def plan_parts(
  rows: Int[np.ndarray, " n"], lengths: Int[np.ndarray, " n"], options: ScoreOptions
) -> list[Part]:
  """Cuts the rows into parts and packs each.

  Args:
    rows: pool rows to score, ascending.
    lengths: tokens of each.
    options: sizes.
  """
  parts = []
  for number, start in enumerate(range(0, len(rows), options.part_rows)):
    part = rows[start : start + options.part_rows]
    packed = packing.pack(lengths[start : start + len(part)], options.row_length)
    packed = [[int(part[i]) for i in items] for items in packed]
    steps = [
      packed[i : i + options.batch_rows]
      for i in range(0, len(packed), options.batch_rows)
    ]
    parts.append(Part(number, part, steps))
  return parts


def make_score_step(config: MllmConfig, seed: int) -> Callable[..., dict[str, Any]]:
  """A jitted (params, batch) -> token signals [B, T] and "embedding" [B, A, E]."""
  matrix = signals.projection(config.decoder.width, seed)

  def step(params: Params, batch: Batch):
    hidden = mllm.hidden_states(config, params, batch)
    out = losses.map_logits(
      signals.token_signals,
      losses.gather_positions(hidden, batch.predict),
      mllm.head(config, params),
      batch.targets,
    )
    embedding = losses.gather_positions(hidden, batch.answers).astype(jnp.float32)
    if matrix is not None:
      embedding = jnp.matmul(embedding, matrix, precision="highest")
    return {**out, "embedding": embedding}

  return jax.jit(step)


def score_pool(
  config: MllmConfig,
  params: Params,
  reader: loader.Reader,
  rows: Int[np.ndarray, " n"],
  tuned: Int[np.ndarray, " k"],
  options: ScoreOptions,
  mesh: Mesh,
  folder: Path,
  progress: Callable[[int, int], None] = lambda done, total: None,
  stopped: Callable[[], bool] = lambda: False,
) -> dict[str, int]:
  """Scores the rows and writes `part-*.parquet` and `embeddings/part-*.npy`.

  Args:
    config: of the model.
    params: of the seed model.
    reader: reads rows.
    rows: pool rows to score, ascending.
    tuned: rows that the seed model was tuned on: marked.
    options: sizes.
    mesh: the devices.
    folder: where to write, and to go on.
    progress: called with rows done and in all.
    stopped: asked after every part.

  Returns:
    Counts: rows "scored", "not_finite" among them, "parts", "executed_tokens",
    "tokens".

  Raises:
    Stopped: `stopped` said so; finished parts stay.
  """
  table = reader.table
  lengths = table.tokens[rows]
  options = dataclasses.replace(
    options, row_length=packing.row_length_for(lengths, options.row_length)
  )
  parts = plan_parts(rows, lengths, options)
  ways = sharding.row_ways(mesh)
  shape = packing.find_shape(
    [step for part in parts for step in part.steps],
    table.supervised,
    table.turns,
    table.has_image,
    options.row_length,
    config.patches,
    reader.options.size,
    ways,
  )
  shape = dataclasses.replace(shape, rows=-(-max(shape.rows, 1) // ways) * ways)
  (folder / "embeddings").mkdir(exist_ok=True)
  (folder / JOURNAL).mkdir(exist_ok=True)
  waiting = [part for part in parts if not _is_written(folder, part.number)]
  done = len(rows) - sum(len(part.rows) for part in waiting)
  progress(done, len(rows))
  steps = [step for part in waiting for step in part.steps]
  batches = iter(
    loader.read_batches(steps, loader.MakeBatch(reader, shape), options.threads)
  )
  step_fn = make_score_step(config, options.seed)
  with sharding.use(mesh):
    shardings = sharding.parameter_shardings(params, logical_axes(params), mesh)
    params = jax.tree.map(jax.device_put, params, shardings)
    for part in waiting:
      outputs = []
      for _ in part.steps:
        batch, owners = next(batches)
        out = step_fn(params, sharding.put_rows(batch, mesh))
        outputs.append((out, owners))
        if len(outputs) > 1:  # one step in flight; the one before comes home
          before, its_owners = outputs[-2]
          outputs[-2] = jax.device_get(before), its_owners
          progress(done + _share_done(part, len(outputs) - 1), len(rows))
      _write_part(
        folder,
        part,
        [(jax.device_get(out), owners) for out, owners in outputs],
        table,
        tuned,
        options.signals,
      )
      done += len(part.rows)
      progress(done, len(rows))
      if stopped() and part is not waiting[-1]:
        raise Stopped(f"scoring stopped after {done:,} of {len(rows):,} rows")
  finite = sum(_journal(folder, part.number)["finite"] for part in parts)
  for path in (folder / JOURNAL).iterdir():
    path.unlink()
  (folder / JOURNAL).rmdir()
  return {
    "scored": len(rows),
    "not_finite": len(rows) - finite,
    "parts": len(parts),
    "tokens": int(lengths.sum()),
    "executed_tokens": sum(len(p.steps) for p in parts) * shape.rows * shape.length,
  }


def part_columns(
  rows: Int[np.ndarray, " n"],
  outputs: list[tuple[dict[str, np.ndarray], packing.Owners]],
) -> tuple[dict[str, Any], Float[np.ndarray, "n E"]]:
  """Per-sample columns and embeddings of a part, from its steps' outputs.

  Args:
    rows: the part's pool rows, ascending.
    outputs: for every step its token signals and embeddings, and their owners.
  """
  sums = {name: np.zeros(len(rows)) for name in outputs[0][0] if name != "embedding"}
  supervised = np.zeros(len(rows), np.int64)
  turns = np.zeros(len(rows), np.int64)
  embeddings = np.zeros((len(rows), outputs[0][0]["embedding"].shape[-1]))
  turn_losses: list[list[float]] = [[] for _ in rows]
  for out, owners in outputs:
    tokens = {name: value for name, value in out.items() if name != "embedding"}
    # Positions in the part; rows ascend, so a search finds them.
    item = np.where(owners.item >= 0, np.searchsorted(rows, owners.item), -1)
    for name, value in signals.sum_by_item(tokens, item, len(rows)).items():
      sums[name] += value
    valid = item >= 0
    supervised += np.bincount(item[valid], minlength=len(rows))
    _add_turns(turn_losses, item[valid], owners.turn[valid], tokens["loss"][valid])
    answer = owners.answer_item >= 0
    answer_of = np.searchsorted(rows, owners.answer_item[answer])
    turns += np.bincount(answer_of, minlength=len(rows))
    np.add.at(embeddings, answer_of, out["embedding"][answer].astype(np.float64))
  columns = signals.sample_columns(sums, supervised)
  columns["supervised"] = supervised
  columns["turn_losses"] = turn_losses
  return columns, (embeddings / turns[:, None]).astype(np.float32)


def _add_turns(turn_losses, item, turn, loss):
  """Appends the mean loss of each turn; a sample lies in one packed row."""
  starts = np.flatnonzero(np.diff(item, prepend=-1) | np.diff(turn, prepend=-1))
  if not len(starts):
    return
  sums = np.add.reduceat(loss.astype(np.float64), starts)
  counts = np.diff(starts, append=len(item))
  for i, mean in zip(item[starts], sums / counts, strict=True):
    turn_losses[i].append(float(mean))


def _share_done(part: Part, steps: int) -> int:
  return len(part.rows) * steps // len(part.steps)


def _write_part(folder: Path, part: Part, outputs, table, tuned, wanted) -> None:
  import pyarrow as pa

  columns, embeddings = part_columns(part.rows, outputs)
  finite = np.isfinite(columns["loss"])
  names = ["supervised", *(n for n in signals.SIGNALS if n in (*wanted, "loss"))]
  written = pa.table(
    {
      "row": pa.array(part.rows, pa.int64()),
      "id": pa.array([table.id[row] for row in part.rows], pa.string()),
      **{name: pa.array(columns[name]) for name in names},
      "turn_losses": pa.array(columns["turn_losses"], pa.list_(pa.float64())),
      "seed": pa.array(np.isin(part.rows, tuned)),
    }
  )
  data = io.BytesIO()
  np.save(data, embeddings, allow_pickle=False)
  name = f"part-{part.number:05d}"
  artifacts.write_table(folder / f"{name}.parquet", written)
  artifacts.write_bytes(folder / "embeddings" / f"{name}.npy", data.getvalue())
  entry = {
    "finite": int(finite.sum()),
    "hashes": [artifacts.hash_file(path) for path in _files(folder, part.number)],
  }
  artifacts.write_json(folder / JOURNAL / f"{name}.json", entry)


def _files(folder: Path, number: int) -> list[Path]:
  name = f"part-{number:05d}"
  return [folder / f"{name}.parquet", folder / "embeddings" / f"{name}.npy"]


def _journal(folder: Path, number: int) -> dict[str, Any]:
  return json.loads((folder / JOURNAL / f"part-{number:05d}.json").read_text())


def _is_written(folder: Path, number: int) -> bool:
  """Whether a part is there, whole and undamaged."""
  try:
    wanted = _journal(folder, number)["hashes"]
    return [artifacts.hash_file(path) for path in _files(folder, number)] == wanted
  except (OSError, ValueError, KeyError):
    return False
