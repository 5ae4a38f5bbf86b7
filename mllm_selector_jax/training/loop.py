"""The training loop of `align`, `seed` and `tune`."""

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

SPIKE_STEPS = 50  # the steps with whose mean loss a spike is compared


class Observed(NamedTuple):
  """The metrics, the work and the time of one step.

  Attributes:
    metrics: step (from 1), loss, learning_rate and grad_norm, as they are saved.
    work: the work in the batch of the step, over all processes.
    seconds: the time since the end of the step before, without compilation and what
      happened between the steps, such as saving a checkpoint.
    waited: the part of `seconds` in which the devices waited for the batch.
    compiling: the seconds of compilation before the step, which are above 0 only for
      the first batch of each shape.
  """

  metrics: dict[str, float]
  work: Work
  seconds: float
  waited: float
  compiling: float = 0.0


class _Dispatched(NamedTuple):
  """A step that was dispatched to the devices, but whose results were not read.

  Attributes:
    step: the number of the step, from 0.
    values: the loss and the gradient norm, which may still be computed.
    rows: the samples of this process in the batch.
    read_sums: waits for the number of processes that are asked to stop and for the
      work of the step, summed over the processes.
    requested, ready: the times at which the batch was requested and was there, both
      delayed by the time of compilation.
    read_end: waits for the step, and returns the time at which it ended.
    compiling: the seconds of compilation before the step.
  """

  step: int
  values: dict[str, jax.Array]
  rows: np.ndarray
  read_sums: Callable[[], np.ndarray]
  requested: float
  ready: float
  read_end: Callable[[], float]
  compiling: float


@dataclasses.dataclass(frozen=True)
class LoopOptions:
  """Options of the training loop.

  Attributes:
    optimizer: the options of the optimizer.
    trainable: the trained parts, a key of `optimizer_options.TRAINABLE`.
    save_every: the number of steps between checkpoints; 0 saves only when stopped.
    keep, keep_best: the number of newest checkpoints that are kept, and of the best
      ones before them; see `Checkpoints`.
    accumulate: the number of micro-batches in a step. Batches need `accumulate` times
      as many shards as the mesh has devices along the batch.
    spike: if above 0, training ends with an error at a loss of more than `spike` times
      the mean of the last `SPIKE_STEPS` steps.
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
  """Trains for `steps` batches.

  Args:
    config: the model.
    params: the initial parameters, which are not changed.
    batches: a grain data set of (Batch, Owners), one for each step, with this process's
      share of the rows.
    steps: the number of batches.
    options: the options of the loop.
    mesh: the devices.
    folder: the folder of the checkpoints, from the newest of which an interrupted run
      continues. None saves no checkpoints.
    progress: called with the number of steps done and the total.
    stopped: called after every step; if it returns True in any process, the state is
      saved and training ends.
    name_rows: describes rows in an error message.
    warn: called with a message if a fast attention kernel cannot be used, or if a
      checkpoint is damaged.
    observe: called with every step of this call, in order.

  Returns:
    All parameters, trained and frozen, and the metrics of every step.

  Raises:
    RunError: the loss is not finite or spikes, in which case the message names the rows
      of the step and the last checkpoint is kept; or a checkpoint cannot be written.
    Stopped: `stopped` returned True, and the state was saved. All processes raise this
      at the same step.
  """
  axes = logical_axes(params)
  shardings = sharding.parameter_shardings(params, axes, mesh)
  params = jax.device_put(params, shardings)
  config = _choose_kernel(config, params, batches, mesh, warn)
  trainable, frozen = split_params(params, options.trainable)
  # The first step donates its buffers, but the caller keeps `params`.
  trainable = _copy(trainable)
  optimizer = make_optimizer(options.optimizer, steps)
  schedule = make_schedule(options.optimizer, steps)
  state, state_shardings = init_state(optimizer, trainable)
  iterator = iter(batches)
  checkpoints = None
  if folder:
    checkpoints = Checkpoints(folder, options.keep, options.keep_best, warn)
  done = 0
  metrics: list[dict[str, Any]] = []
  if checkpoints:
    done, state, metrics = checkpoints.restore(state, iterator)
  step_fn = make_train_step(
    config, optimizer, state_shardings, options.accumulate, sharding.row_ways(mesh)
  )
  count = make_count(config, params, trainable.keys())
  waiting: list[_Dispatched] = []
  programs: dict[tuple, Callable] = {}  # compiled steps, by the shapes of the batch
  last = -math.inf  # the time at which the last step that was read ended
  stop = False  # whether any process was asked to stop

  def collect(keep: int):
    nonlocal last, stop
    # The metrics of a step are read one step late, which keeps the devices busy.
    while len(waiting) > keep:
      sent = waiting.pop(0)
      step, values, rows = sent.step, sent.values, sent.rows
      stop_requests, tokens, places, flops = sent.read_sums().tolist()
      stop |= stop_requests > 0
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
      span = timing.measure(last, sent.requested, sent.ready, sent.read_end())
      last = span.end
      observe(Observed(metrics[-1], work, span.seconds, span.waited, sent.compiling))

  def save():
    collect(0)
    checkpoints.save(done, state, iterator, metrics)

  with checkpoints or contextlib.nullcontext(), sharding.use(mesh):
    while done < steps:
      requested_at = time.perf_counter()
      batch, owners = next(iterator)
      ready_at = time.perf_counter()
      arguments = state, frozen, sharding.put_rows(batch, mesh)
      shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(batch))
      compiling = 0.0
      if shapes not in programs:
        begin = time.perf_counter()
        programs[shapes] = step_fn.lower(*arguments).compile()
        compiling = time.perf_counter() - begin
      state, values = programs[shapes](*arguments)
      read_end = timing.note_end(values)
      rows = np.unique(owners.item[owners.item >= 0])
      done += 1
      progress(done, steps)
      stop_here = stopped()
      addends = np.array([stop_here, *count(batch)], np.float64)
      waiting.append(
        _Dispatched(
          done - 1,
          values,
          rows,
          row_shares.sum_later(addends, mesh),
          requested_at + compiling,
          ready_at + compiling,
          read_end,
          compiling,
        )
      )
      stop |= stop_here and jax.process_count() == 1
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
  """Returns the config with an attention kernel that was checked on the first batch.

  The batch is read by an iterator of its own, so that the one of the loop stays at the
  start.
  """
  if attention_check.wanted_kernel(config) == "xla":
    return dataclasses.replace(config, attention="xla")
  first, _ = next(iter(batches))
  with sharding.use(mesh):
    batch = sharding.put_rows(first, mesh)
    return attention_check.choose_kernel(config, params, batch, warn)


def _copy(tree: Params) -> Params:
  """Copies a tree to new buffers with the same shardings."""
  shardings = jax.tree.map(lambda x: x.sharding, tree)
  return jax.jit(lambda t: jax.tree.map(jnp.copy, t), out_shardings=shardings)(tree)


def format_metrics(metrics: list[dict[str, float]]) -> str:
  """Formats metrics as JSONL, one line for each step."""
  return "".join(json.dumps(line) + "\n" for line in metrics)
