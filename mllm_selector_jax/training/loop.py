"""The training loop: the same for seed, tune and stage-1 alignment."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mllm_selector_jax import sharding
from mllm_selector_jax.models import attention_check
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.runs import row_shares
from mllm_selector_jax.runs.checkpoint import Checkpoints
from mllm_selector_jax.training import timing
from mllm_selector_jax.training.optimizer import (
  OptimizerOptions,
  make_optimizer,
  make_schedule,
)
from mllm_selector_jax.training.train_step import (
  init_state,
  make_train_step,
  split_params,
)
from mllm_selector_jax.training.work import Work, make_count
from mllm_selector_jax.types import Params, RunError, Stopped

SPIKE_STEPS = 50  # whose mean loss a spike is measured by


class Observed(NamedTuple):
  """One step as it went.

  Attributes:
    metrics: step (from 1), loss, learning_rate, grad_norm: what is kept.
    work: of the step's batch, over all processes.
    seconds: since the step before was done; without what lies between two steps,
      such as saving a checkpoint, and without compilation.
    waited: of them, for the batch to be read.
    compiling: seconds before the step; above 0 at the first batch of a shape.
  """

  metrics: dict[str, float]
  work: Work
  seconds: float
  waited: float
  compiling: float = 0.0


class _Sent(NamedTuple):
  """A step that the devices have been given.

  Attributes:
    step: from 0.
    values: what it will give.
    rows: the samples of this process in it.
    told: waits for whether to stop and the step's work, summed over the processes.
    asked, ready: when its batch was asked for, and was there; compilation counts
      as done before that.
    read_end: waits for the step and gives when it was done.
    compiling: seconds.
  """

  step: int
  values: dict[str, jax.Array]
  rows: np.ndarray
  told: Callable[[], np.ndarray]
  asked: float
  ready: float
  read_end: Callable[[], float]
  compiling: float


@dataclasses.dataclass(frozen=True)
class LoopOptions:
  """How a run is carried out.

  Attributes:
    optimizer: the recipe.
    trainable: "projector", "decoder" (with the projector) or "all".
    save_every: steps between checkpoints; 0 saves only when stopped.
    keep, keep_best: how many of the newest, and of the best before them, stay; see
      `Checkpoints`.
    accumulate: micro-batches of a step; the batches have `accumulate` times as
      many shards as the mesh has devices for rows.
    spike: above 0, a loss of more than this many times the mean of the steps
      before, `SPIKE_STEPS` at most, ends the run.
  """

  optimizer: OptimizerOptions
  trainable: str = "decoder"
  save_every: int = 0
  keep: int = 1
  keep_best: int = 0
  accumulate: int = 1
  spike: float = 0.0


def train(
  config: MllmConfig,
  params: Params,
  batches: Any,
  steps: int,
  options: LoopOptions,
  mesh: Mesh,
  folder: PurePath | None = None,
  progress: Callable[[int, int], None] = lambda done, total: None,
  stopped: Callable[[], bool] = lambda: False,
  name_rows: Callable[[np.ndarray], str] = lambda rows: f"rows {rows.tolist()}",
  warn: Callable[[str], None] = lambda text: None,
  observe: Callable[[Observed], None] = lambda observed: None,
) -> tuple[Params, list[dict[str, float]]]:
  """Trains for `steps` batches and returns all parameters and the metrics.

  Args:
    config: the model.
    params: where to start; not changed.
    batches: a grain data set of (Batch, Owners), one a step: this process's share
      of its rows.
    steps: how many of them there are.
    options: how.
    mesh: the devices.
    folder: of the checkpoints; an interrupted run goes on from the newest one.
      None makes none.
    progress: called with the steps done and the total.
    stopped: asked after every step; when true, in any process, the state is saved.
    name_rows: names rows in an error.
    warn: told why a fast attention kernel is not used, where it is not, and of
      checkpoints that are damaged.
    observe: given every step of this call, in order.

  Raises:
    RunError: the loss is not finite, or a spike; the rows of that step are named,
      and the checkpoint is left as it was. Or a checkpoint could not be written.
    Stopped: `stopped` said so; the state is saved. Of several processes all raise
      it, at the same step.
  """
  axes = logical_axes(params)
  shardings = sharding.parameter_shardings(params, axes, mesh)
  params = jax.device_put(params, shardings)
  config = _choose_kernel(config, params, batches, mesh, warn)
  trainable, frozen = split_params(params, options.trainable)
  # The first step gives its buffers away, and the caller keeps params.
  trainable = _copy(trainable)
  optimizer = make_optimizer(options.optimizer, steps)
  schedule = make_schedule(options.optimizer, steps)
  state, laid = init_state(optimizer, trainable)
  iterator = iter(batches)
  checkpoints = None
  if folder:
    checkpoints = Checkpoints(folder, options.keep, options.keep_best, warn)
  done, metrics = 0, []
  if checkpoints:
    done, state, metrics = checkpoints.restore(state, iterator)
  step_fn = make_train_step(
    config, optimizer, laid, options.accumulate, sharding.row_ways(mesh)
  )
  count = make_count(config, params, trainable.keys())
  waiting: list[_Sent] = []
  programs: dict[tuple, Callable] = {}  # the compiled step by the batch's shapes
  last = -math.inf  # when the newest step was done
  stop = False  # whether any process is asked to

  def collect(keep: int):
    nonlocal last, stop
    # Reading a step's metrics one step late keeps the device busy.
    while len(waiting) > keep:
      sent = waiting.pop(0)
      step, values, rows = sent.step, sent.values, sent.rows
      asked, tokens, places, flops = sent.told().tolist()
      stop |= asked > 0
      work = Work(int(tokens), int(places), flops)
      loss, grad_norm = float(values["loss"]), float(values["grad_norm"])
      if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise RunError(
          f"Training: the loss of step {step + 1} of {steps} is {loss} (gradient"
          f" norm {grad_norm}). Its {len(rows)} samples: {name_rows(rows)}. Look at"
          " them, or lower the learning rate; the last checkpoint is untouched."
        )
      before = [line["loss"] for line in metrics[-SPIKE_STEPS:]]
      if options.spike and before and loss > options.spike * np.mean(before):
        raise RunError(
          f"Training: the loss of step {step + 1} of {steps} is {loss:.4g}, more than"
          f" {options.spike:g} (spike) times the mean of the {len(before)} steps before"
          f" it, {np.mean(before):.4g}. Its {len(rows)} samples: {name_rows(rows)}."
          " Look at them, lower the learning rate, or set spike=0 to go on; the last"
          " checkpoint is untouched."
        )
      rate = float(schedule(step))
      metrics.append(
        {"step": step + 1, "loss": loss, "learning_rate": rate, "grad_norm": grad_norm}
      )
      span = timing.measure(last, sent.asked, sent.ready, sent.read_end())
      last = span.end
      observe(Observed(metrics[-1], work, span.seconds, span.waited, sent.compiling))

  def save():
    collect(0)
    checkpoints.save(done, state, iterator, metrics)

  with checkpoints or contextlib.nullcontext(), sharding.use(mesh):
    while done < steps:
      asked_at = time.perf_counter()
      batch, owners = next(iterator)
      ready_at = time.perf_counter()
      given = state, frozen, sharding.put_rows(batch, mesh)
      shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(batch))
      compiling = 0.0
      if shapes not in programs:
        begin = time.perf_counter()
        programs[shapes] = step_fn.lower(*given).compile()
        compiling = time.perf_counter() - begin
      state, values = programs[shapes](*given)
      read_end = timing.note_end(values)
      rows = np.unique(owners.item[owners.item >= 0])
      done += 1
      progress(done, steps)
      asked = stopped()
      told = row_shares.sum_later(np.array([asked, *count(batch)], np.float64), mesh)
      waiting.append(
        _Sent(
          done - 1,
          values,
          rows,
          told,
          asked_at + compiling,
          ready_at + compiling,
          read_end,
          compiling,
        )
      )
      stop |= asked and jax.process_count() == 1
      collect(1)
      if stop and done < steps:
        if checkpoints:
          save()
        raise Stopped(f"training stopped after step {done} of {steps}")
      if checkpoints:
        checkpoints.check()
        if options.save_every and done % options.save_every == 0:
          save()
    collect(0)
  return {**frozen, **state.params}, metrics


def _choose_kernel(config, params, batches, mesh, warn) -> MllmConfig:
  """The config with the kernel that agrees on the first batch.

  The batch is read once more, so that the run's own iterator stands still.
  """
  if attention_check.wanted_kernel(config) == "xla":
    return dataclasses.replace(config, attention="xla")
  first, _ = next(iter(batches))
  with sharding.use(mesh):
    laid = sharding.put_rows(first, mesh)
    return attention_check.choose_kernel(config, params, laid, warn)


def _copy(tree: Params) -> Params:
  """Arrays of its own, laid out as the tree's."""
  layout = jax.tree.map(lambda x: x.sharding, tree)
  return jax.jit(lambda t: jax.tree.map(jnp.copy, t), out_shardings=layout)(tree)


def format_metrics(metrics: list[dict[str, float]]) -> str:
  """One JSON object a step."""
  return "".join(json.dumps(line) + "\n" for line in metrics)
