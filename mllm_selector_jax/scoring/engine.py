"""Scoring a pool: every row's signals, exactly once, resumable part by part."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from mllm_selector_jax import sharding
from mllm_selector_jax.data.packing import loader, row_packing
from mllm_selector_jax.data.packing.assembly import Counts, Shape
from mllm_selector_jax.data.packing.tree_packing import Plan, make_plan
from mllm_selector_jax.models import attention_check
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.runs import peers, row_shares
from mllm_selector_jax.scoring import nonfinite, schedule, score_parts, signals
from mllm_selector_jax.scoring.passes import MAIN, Pass, PassReader
from mllm_selector_jax.scoring.sample_columns import Output, make_columns
from mllm_selector_jax.scoring.score_step import make_score_step
from mllm_selector_jax.types import InputError, Params, Stopped


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
    signals: columns of the table, of `signals.SIGNALS` or plug-ins'; the loss always
      is one.
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
    signals.find_plugged(sorted(self.signals))


def plan_pass(
  own: Pass,
  table: Any,
  rows: Int[np.ndarray, " n"],
  options: ScoreOptions,
) -> Plan:
  """The packed rows of a pass.

  Args:
    own: the pass.
    table: the checked pool.
    rows: pool rows to score.
    options: sizes.
  """
  lengths = table.tokens[rows].astype(np.int64)
  prefixes, tiles = None, table.tiles[rows]
  if not own.images:
    lengths, tiles = lengths - table.image_tokens[rows], np.zeros_like(tiles)
  if options.share:
    # Without images, rows share what precedes the first one.
    span = (1, None) if own.images else (0, 1)
    prefixes = table.prefixes.take(rows, *span)
    if not own.questions:
      prefixes = prefixes.drop_questions()
  length = row_packing.row_length_for(lengths, options.row_length)
  supervised = table.supervised[rows]
  return make_plan(lengths, length, prefixes, tiles, supervised, options.batch_rows)


@dataclasses.dataclass(frozen=True)
class PassLayout:
  """How a pass goes over the pool; nothing has been read yet.

  Attributes:
    plan: packed rows of the items.
    rows: the pool row of each item.
    parts: of the plan, all of them.
    batch_rows: packed rows a step.
    shapes: of the steps' batches.
    counts: of every pool row, as the pass feeds it.
    share, shares: which of equal shares of a step's rows this process feeds.
  """

  plan: Plan
  rows: Int[np.ndarray, " n"]
  parts: list[schedule.Part]
  batch_rows: int
  shapes: schedule.Shapes
  counts: Counts
  share: int
  shares: int

  @property
  def shape(self) -> Shape:
    """A shape that holds every step."""
    return self.shapes.largest

  @property
  def own_shapes(self) -> tuple[Shape, ...]:
    """The shapes of this process's share of a batch; the last one holds every step."""
    every = *self.shapes.shapes, self.shapes.largest
    return tuple(shape.share(self.shares) for shape in every)

  def steps(self, parts: list[schedule.Part]) -> schedule.ShapedSteps:
    """The steps of these parts, of each this process's share."""
    steps = schedule.Steps(
      self.plan, self.rows, parts, self.batch_rows, self.share, self.shares
    )
    return schedule.ShapedSteps(steps, self.shapes.which)

  def own_rows(self, step: list) -> list:
    """Of a step's packed rows, this process's share."""
    each = len(step) // self.shares
    return step[self.share * each : (self.share + 1) * each]

  def describe(self, table: Any, own: Pass) -> dict[str, int]:
    """What the pass computes, padding included; see `run_pass`."""
    shapes = [self.shapes.shapes[number] for number in self.shapes.which]
    rows = self.rows
    fed = int(self.plan.tokens(table.tokens[rows]).sum()) if own.change is None else 0
    return {
      "parts": len(self.parts),
      "packed_rows": len(self.plan),
      "steps": len(shapes),
      "tokens": fed,
      "executed_tokens": sum(one.rows * one.length for one in shapes),
      "tiles": int(self.plan.tiles(self.counts.tiles[rows]).sum()),
      "executed_tiles": sum(one.shards * one.tiles for one in shapes),
      "supervised": int(table.supervised[rows].sum()),
      "executed_supervised": sum(one.shards * one.supervised for one in shapes),
      "executed_answers": sum(one.shards * one.answers for one in shapes),
    }


def lay_out(
  config: MllmConfig,
  table: Any,
  rows: Int[np.ndarray, " n"],
  options: ScoreOptions,
  mesh: Mesh,
  own: Pass = MAIN,
  described: bool = False,
) -> PassLayout:
  """Plans a pass; arguments as `run_pass` has them, `table` of the checked pool.

  With `described`, the mesh is of devices that are not there, and so of no process.
  """
  plan = plan_pass(own, table, rows, options)
  share, shares = (0, 1) if described else row_shares.row_share(mesh)
  ways = sharding.row_ways(mesh)
  batch_rows = -(-options.batch_rows // ways) * ways
  every = schedule.cut_parts(plan, rows, options.part_rows, batch_rows)
  counts = Counts.of_pool(table, own.images)
  shapes = schedule.find_shapes(
    schedule.Steps(plan, rows, every, batch_rows),
    counts,
    config.tiling,
    ways,
  )
  return PassLayout(plan, rows, every, batch_rows, shapes, counts, share, shares)


@dataclasses.dataclass(frozen=True)
class _Runner:
  """Runs steps on the devices, one of them in flight.

  Attributes:
    step: of `make_score_step`.
    params: laid over the mesh.
    mesh: the devices.
    layout: of the pass.
    make: a step's packed rows to a batch; the last of its shapes holds every step.
    threads: that read ahead.
  """

  step: Callable[[Params, Any], dict[str, jax.Array]]
  params: Params
  mesh: Mesh
  layout: PassLayout
  make: loader.MakeStep
  threads: int

  def run(
    self,
    count: int,
    batches: Iterator,
    tell: Callable[[int], None] = lambda number: None,
  ) -> list[Output]:
    """The next steps' outputs and owners, of all processes."""
    outputs, running = [], None
    for number in range(count):
      batch, owners = next(batches)
      out = self.step(self.params, sharding.put_rows(batch, self.mesh))
      if running is not None:
        outputs.append(row_shares.gather_rows(running, self.mesh))
        tell(number)
      running = out, owners
    outputs.append(row_shares.gather_rows(running, self.mesh))
    return outputs

  def set_apart(self, outputs: list[Output]) -> list[Output]:
    """The outputs, with samples that are not finite scored alone once more."""
    bad = nonfinite.find_not_finite(outputs)
    if not len(bad):
      return outputs
    steps = nonfinite.set_apart(bad, self.layout.counts, self.layout.shape)
    mine = [(-1, self.layout.own_rows(step)) for step in steps]
    batches = iter(loader.read_batches(mine, self.make, self.threads))
    return nonfinite.drop_rows(outputs, bad) + self.run(len(steps), batches)


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
    "executed_tokens", padding included; "tiles" and "supervised" likewise.

  Raises:
    Stopped: `stopped` said so, in any process; finished parts stay.
  """
  layout = lay_out(config, reader.table, rows, options, mesh, own)
  waiting = _find_waiting(layout.parts, folder)
  done = len(rows) - sum(len(part.rows) for part in waiting)
  progress(done, len(rows))
  if not waiting:
    return layout.describe(reader.table, own)
  make = loader.MakeStep(PassReader(reader, own), layout.own_shapes)
  batches = iter(loader.read_batches(layout.steps(waiting), make, options.threads))
  with sharding.use(mesh):
    shardings = sharding.parameter_shardings(params, logical_axes(params), mesh)
    params = jax.tree.map(jax.device_put, params, shardings)
    first = next(batches)
    batches = itertools.chain([first], batches)
    laid = sharding.put_rows(first[0], mesh)
    config = attention_check.choose_kernel(config, params, laid, warn)
    step = make_score_step(
      config,
      options.seed,
      own.whole,
      signals.list_token_signals(options.signals) if own.whole else (),
    )
    runner = _Runner(step, params, mesh, layout, make, options.threads)
    for part in waiting:

      def tell(steps, done=done, part=part):
        progress(done + len(part.rows) * steps // part.steps, len(rows))

      outputs = runner.set_apart(runner.run(part.steps, batches, tell))
      if peers.is_first_process():
        score_parts.write_part(folder, part.number, make_columns(part.rows, outputs))
      done += len(part.rows)
      progress(done, len(rows))
      if peers.any_process(stopped()) and part is not waiting[-1]:
        raise Stopped(f"scoring stopped after {done:,} of {len(rows):,} rows")
  return layout.describe(reader.table, own)


def _find_waiting(every: list[schedule.Part], folder: Path) -> list[schedule.Part]:
  """The parts that are not there yet, as the first process finds them."""
  first = peers.is_first_process()
  there = [first and score_parts.is_written(folder, p.number, p.rows) for p in every]
  found = peers.agree(np.array(there, bool))
  return [part for part, written in zip(every, found, strict=True) if not written]
