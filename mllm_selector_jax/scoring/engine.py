"""Scoring a pool: every row's signals, exactly once, resumable part by part."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from mllm_selector_jax import losses, sharding
from mllm_selector_jax.data import loader, packing
from mllm_selector_jax.data.assembly import Counts, Shape
from mllm_selector_jax.data.plan import Plan, make_plan
from mllm_selector_jax.models import attention_check, mllm
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.scoring import leaks, parts, schedule, signals
from mllm_selector_jax.scoring.columns import Output, make_columns
from mllm_selector_jax.scoring.passes import MAIN, Pass, PassReader
from mllm_selector_jax.types import Batch, InputError, Params, Stopped


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
  """How a pool is scored; none of it changes a score beyond rounding.

  Attributes:
    row_length: tokens of a packed row.
    batch_rows: packed rows a step.
    part_rows: pool rows a part, about.
    threads: that read ahead.
    share: whether samples of one image share its tokens.
    seed: of the embedding's projection.
    signals: columns of the table, of `signals.SIGNALS`; the loss always is one.
  """

  row_length: int = 2048
  batch_rows: int = 16
  part_rows: int = 8192
  threads: int = 2
  share: bool = True
  seed: int = 0
  signals: tuple[str, ...] = (*signals.MEANS, "loss_sum", "perplexity")

  def __post_init__(self):
    for name in ("row_length", "batch_rows", "part_rows"):
      if getattr(self, name) < 1:
        raise InputError(f"score.{name}={getattr(self, name)}: it must be 1 or more.")
    unknown = sorted(set(self.signals) - set(signals.SIGNALS))
    if unknown:
      raise InputError(
        f"score.signals names {unknown[0]!r}; there are {', '.join(signals.SIGNALS)}."
      )


def plan_pass(
  own: Pass,
  table: Any,
  rows: Int[np.ndarray, " n"],
  patches: int,
  options: ScoreOptions,
) -> Plan:
  """The packed rows of a pass.

  Args:
    own: the pass.
    table: the checked pool.
    rows: pool rows to score.
    patches: image tokens of an image.
    options: sizes.
  """
  lengths, trunks = table.tokens[rows].astype(np.int64), table.trunk[rows]
  keys = image_keys(table.pixels[rows])
  if not own.images:
    # What is left of a trunk, the system text, is the same for all images.
    lengths = lengths - patches * table.has_image[rows]
    trunks = np.maximum(trunks - patches, 0)
    keys = (trunks > 0).astype(np.uint64)
  if not options.share:
    trunks = np.zeros_like(trunks)
  length = packing.row_length_for(lengths, options.row_length)
  return make_plan(lengths, length, trunks, keys, table.supervised[rows])


def image_keys(pixels: np.ndarray) -> np.ndarray:
  """A number for each hash of pixels, 0 for none; equal for equal ones alone."""
  import pyarrow as pa

  coded = pa.array(pixels, pa.string()).dictionary_encode().indices
  return (coded.fill_null(-1).to_numpy().astype(np.int64) + 1).astype(np.uint64)


@functools.lru_cache(maxsize=8)  # passes of one model are compiled once
def make_score_step(
  config: MllmConfig, seed: int = 0, whole: bool = True
) -> Callable[[Params, Batch], dict[str, jax.Array]]:
  """A jitted (params, batch) -> token signals [W, T] and "embedding" [W, A, E].

  Args:
    config: the model.
    seed: of the embedding's projection.
    whole: whether all is wanted, or "loss" alone.
  """
  matrix = signals.projection(config.decoder.width, seed) if whole else None
  fn = signals.token_signals if whole else signals.token_losses

  def step(params: Params, batch: Batch):
    hidden = mllm.hidden_states(config, params, batch)
    states = losses.gather_positions(hidden, batch.predict)
    out = losses.map_logits(fn, states, mllm.head(config, params), batch.targets)
    if not whole:
      return out
    embedding = losses.gather_positions(hidden, batch.answers).astype(jnp.float32)
    if matrix is not None:
      embedding = jnp.matmul(embedding, matrix, precision="highest")
    return {**out, "embedding": embedding}

  return jax.jit(step)


def run_pass(
  config: MllmConfig,
  params: Params,
  reader: Any,
  rows: Int[np.ndarray, " n"],
  options: ScoreOptions,
  mesh: Mesh,
  folder: Path,
  own: Pass = MAIN,
  progress: Callable[[int, int], None] = lambda done, total: None,
  stopped: Callable[[], bool] = lambda: False,
  warn: Callable[[str], None] = lambda text: None,
) -> dict[str, int]:
  """Makes the parts of one pass; those that are there, whole, are kept.

  Args:
    config: of the model.
    params: its parameters.
    reader: reads rows of the checked pool.
    rows: pool rows to score, ascending.
    options: sizes.
    mesh: the devices, of all processes.
    folder: of this pass's parts; seen by all processes, written by the first.
    own: which pass.
    progress: called with rows done and in all.
    stopped: asked after every part.
    warn: told why a fast attention kernel is not used, where it is not.

  Returns:
    Counts: "parts", "packed_rows", "steps", "tokens" of all samples and
    "executed_tokens", padding included; "images" and "supervised" likewise.

  Raises:
    Stopped: `stopped` said so, in any process; finished parts stay.
  """
  table = reader.table
  plan = plan_pass(own, table, rows, config.patches, options)
  ways, share, shares = sharding.row_ways(mesh), *sharding.row_share(mesh)
  batch_rows = -(-options.batch_rows // ways) * ways
  every = schedule.cut_parts(plan, rows, options.part_rows, batch_rows)
  whole = schedule.Steps(plan, rows, every, batch_rows)
  has_image = table.has_image & own.images
  shape = schedule.find_shape(
    whole,
    table.supervised,
    table.turns,
    has_image,
    config.patches,
    config.vision.image_size,
    ways,
  )
  there = sharding.agree([parts.is_written(folder, p.number, p.rows) for p in every])
  waiting = [part for part, found in zip(every, there, strict=True) if not found]
  left = schedule.Steps(plan, rows, waiting, batch_rows, share, shares)
  done = len(rows) - sum(len(part.rows) for part in waiting)
  progress(done, len(rows))
  make = loader.MakeBatch(PassReader(reader, own), _share_shape(shape, shares))
  counts = Counts(has_image, table.supervised, table.turns)
  batches = iter(loader.read_batches(left, make, options.threads))
  with sharding.use(mesh):
    shardings = sharding.parameter_shardings(params, logical_axes(params), mesh)
    params = jax.tree.map(jax.device_put, params, shardings)
    if waiting:
      first = next(batches)
      batches = itertools.chain([first], batches)
      laid = sharding.put_rows(first[0], mesh)
      config = attention_check.choose_kernel(config, params, laid, warn)
    step = make_score_step(config, options.seed, own.whole)

    def tell(part, steps):
      progress(done + len(part.rows) * steps // part.steps, len(rows))

    def score_apart(outputs):
      bad = leaks.find_not_finite(outputs)
      if not len(bad):
        return outputs
      steps = leaks.set_apart(bad, counts, shape)
      mine = [_share_rows(rows, share, shares) for rows in steps]
      again = iter(loader.read_batches(mine, make, options.threads))
      again = _run_steps(len(steps), again, step, params, mesh)
      return leaks.drop_rows(outputs, bad) + again

    for part in waiting:
      outputs = score_apart(
        _run_steps(
          part.steps, batches, step, params, mesh, functools.partial(tell, part)
        )
      )
      if sharding.is_first_process():
        parts.write_part(folder, part.number, make_columns(part.rows, outputs))
      done += len(part.rows)
      progress(done, len(rows))
      if sharding.any_process(stopped()) and part is not waiting[-1]:
        raise Stopped(f"scoring stopped after {done:,} of {len(rows):,} rows")
  return {
    "parts": len(every),
    "packed_rows": len(plan),
    "steps": len(whole),
    "tokens": int(plan.tokens(table.tokens[rows]).sum()) if own.change is None else 0,
    "executed_tokens": len(whole) * shape.rows * shape.length,
    "images": int(plan.images(has_image[rows]).sum()),
    "executed_images": len(whole) * shape.shards * shape.images,
    "supervised": int(table.supervised[rows].sum()),
    "executed_supervised": len(whole) * shape.shards * shape.supervised,
  }


def _run_steps(
  count, batches, step, params, mesh, tell=lambda number: None
) -> list[Output]:
  """The steps' outputs and owners, of all processes; one step is in flight."""
  outputs, running = [], None
  for number in range(count):
    batch, owners = next(batches)
    out = step(params, sharding.put_rows(batch, mesh))
    if running is not None:
      outputs.append(sharding.gather_rows(running))
      tell(number)
    running = out, owners
  outputs.append(sharding.gather_rows(running))
  return outputs


def _share_shape(shape: Shape, shares: int) -> Shape:
  return dataclasses.replace(
    shape, rows=shape.rows // shares, shards=shape.shards // shares
  )


def _share_rows(rows: list, share: int, shares: int) -> list:
  each = len(rows) // shares
  return rows[share * each : (share + 1) * each]
