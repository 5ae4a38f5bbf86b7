"""Compiles the real training and scoring steps for devices that need not be present.

Parameters, optimizer state and batches are only shapes; nothing is allocated. What a
program told is kept (kept_programs.py), so that no step is compiled twice.
"""

import dataclasses
import re
import time
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mllm_selector_jax import sharding
from mllm_selector_jax.data.packing import assembly
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.pipeline import fine_tune
from mllm_selector_jax.pipeline.tuning_recipe import add_adapter
from mllm_selector_jax.planning import counting, kept_programs
from mllm_selector_jax.scoring import engine
from mllm_selector_jax.scoring.score_step import make_score_step
from mllm_selector_jax.scoring.signals import list_token_signals
from mllm_selector_jax.training import optimizer as optimizers
from mllm_selector_jax.training import train_step
from mllm_selector_jax.types import Batch, Params


@dataclasses.dataclass(frozen=True)
class Memory:
  """Memory that a program needs on one device, in bytes.

  Attributes:
    arguments: Parameters, optimizer state and the batch.
    temporaries: Activations, gathered parameters and gradients.
    outputs: Outputs that do not reuse the memory of a donated argument.
    code: The compiled code.
    total: The sum of these.
  """

  arguments: int
  temporaries: int
  outputs: int
  code: int

  @property
  def total(self) -> int:
    return self.arguments + self.temporaries + self.outputs + self.code


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled step.

  Attributes:
    title: "seed", "tune" or "score".
    steps: Number of steps in the stage.
    shape: Shape of a batch.
    memory: Memory per device; None if the compiler ran out of memory.
    arguments: Bytes of the arguments per device, which are always known.
    needed: Bytes per device that the compiler asked for when it ran out of memory;
      None if it did not say.
    refused: The compiler's error message in that case, otherwise "".
    executed: FLOPs of one step on all devices, including padding, recomputation and
      masked attention.
    counted: FLOPs per device by the compiler's own count, which counts the body of a
      loop once; None if it gives none.
    collectives: Bytes per step and device, by kind of collective.
    seconds: Seconds that compiling took.
    kept: Whether the step was compiled earlier, and its figures were kept.
  """

  title: str
  steps: int
  shape: assembly.Shape
  memory: Memory | None
  arguments: int
  needed: float | None
  refused: str
  executed: float
  counted: float | None
  collectives: dict[str, int]
  seconds: float
  kept: bool = False


def choose_attention(config: MllmConfig, platform: str) -> MllmConfig:
  """Return the config with the attention kernel of a run on these devices.

  cuDNN's kernel cannot be compiled without a GPU; XLA's attention replaces it.
  """
  if config.attention == "auto":
    fast = "splash" if platform == "tpu" else "xla"
    return dataclasses.replace(config, attention=fast)
  if config.attention == "cudnn":
    return dataclasses.replace(config, attention="xla")
  return config


def abstract_params(config: MllmConfig, mesh: Mesh) -> Params:
  """Return the shapes and shardings of the parameters."""
  params = mllm.abstract(config)
  layout = sharding.parameter_shardings(params, logical_axes(params), mesh)
  return jax.tree.map(_place, params, layout)


def abstract_batch(shape: assembly.Shape, mesh: Mesh) -> Batch:
  """Return the shapes and shardings of a batch."""
  rows = NamedSharding(mesh, sharding.ROWS)
  return Batch(
    *(
      spec and jax.ShapeDtypeStruct(*spec, sharding=rows)
      for spec in assembly.describe_batch(shape)
    )
  )


def _place(leaf: Any, layout: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout)


class Step(NamedTuple):
  """A step that is not compiled yet.

  Attributes:
    call: The jitted function.
    arguments: Shapes and shardings of its arguments.
    steps: Number of steps in the stage.
    shape: Shape of a batch.
    identity: What decides the program beside the mesh, for `kept_programs`; None for a
      program that is not kept, since code outside this package decides it too.
  """

  call: Any
  arguments: tuple[Any, ...]
  steps: int
  shape: assembly.Shape
  identity: dict[str, Any] | None = None


def describe_train(
  config: MllmConfig,
  section: Any,
  pool: Any,
  rows: np.ndarray,
  mesh: Mesh,
  platform: str,
  seed: int = 0,
) -> Step:
  """Describe the training step of a recipe on some rows of the pool.

  Args:
    config: Config of the base model, with the dtype and the remat policy.
    section: Training section of the config.
    pool: The checked pool.
    rows: Pool row numbers to train on.
    mesh: Mesh of the described devices.
    platform: Platform of the described devices, "tpu" or "gpu".
    seed: Seed of the order of the rows.
  """
  config = add_adapter(config, section)
  ways = sharding.row_ways(mesh)
  planned = fine_tune.lay_out(section, pool, rows, seed, config.tiling, ways)
  steps, shape = planned.steps, planned.largest
  config = choose_attention(config, platform)
  options = fine_tune.make_options(section)
  trainable, frozen = train_step.split_params(
    abstract_params(config, mesh), options.trainable
  )
  optimizer = optimizers.make_optimizer(options.optimizer, len(steps))
  state_layout = train_step.lay_out_state(optimizer, trainable)
  moments = jax.tree.map(
    _place, jax.eval_shape(optimizer.init, trainable), state_layout.optimizer
  )
  fn = train_step.make_train_step(
    config, optimizer, state_layout, options.accumulate, ways
  )
  arguments = train_step.State(trainable, moments), frozen, abstract_batch(shape, mesh)
  # The number of steps decides the schedule's values, and neither memory nor FLOPs.
  identity = {
    "step": "train",
    "config": kept_programs.describe_dataclass(config),
    "optimizer": kept_programs.describe_dataclass(options.optimizer),
    "trained": [options.trainable, options.accumulate],
    "shape": kept_programs.describe_dataclass(shape),
  }
  return Step(fn, arguments, len(steps), shape, identity)


def compile_train(
  title: str,
  config: MllmConfig,
  section: Any,
  pool: Any,
  rows: np.ndarray,
  mesh: Mesh,
  platform: str,
  seed: int = 0,
) -> Program:
  """Compile the step of `describe_train`; `title` names the program for people."""
  step = describe_train(config, section, pool, rows, mesh, platform, seed)
  return _compile(title, step, mesh)


def describe_score(
  config: MllmConfig,
  options: engine.ScoreOptions,
  pool: Any,
  rows: np.ndarray,
  mesh: Mesh,
  platform: str,
) -> tuple[Step, engine.PassLayout]:
  """Describe the step of the main scoring pass over some rows, and lay out the pass.

  Args:
    config: The model's config.
    options: Options of the scoring.
    pool: The checked pool.
    rows: Pool row numbers to score.
    mesh: Mesh of the described devices.
    platform: Platform of the described devices, "tpu" or "gpu".
  """
  layout = engine.lay_out(config, pool, rows, options, mesh, described=True)
  config = choose_attention(config, platform)
  plugged = list_token_signals(options.signals)
  fn = make_score_step(config, options.seed, True, plugged)
  arguments = abstract_params(config, mesh), abstract_batch(layout.shape, mesh)
  count = sum(part.steps for part in layout.parts)
  identity = {
    "step": "score",
    "config": kept_programs.describe_dataclass(config),
    "seed": options.seed,
    "shape": kept_programs.describe_dataclass(layout.shape),
  }
  step = Step(fn, arguments, count, layout.shape, None if plugged else identity)
  return step, layout


def compile_score(
  config: MllmConfig,
  options: engine.ScoreOptions,
  pool: Any,
  rows: np.ndarray,
  mesh: Mesh,
  platform: str,
) -> tuple[Program, engine.PassLayout]:
  """Compile the step of `describe_score`, and return it with the layout of the pass."""
  step, layout = describe_score(config, options, pool, rows, mesh, platform)
  return _compile("score", step, mesh), layout


def count_executed(step: Step, mesh: Mesh) -> float:
  """Count the FLOPs that a step executes on all devices, without compiling it."""
  with sharding.use(mesh):
    return counting.count_flops(step.call.trace(*step.arguments).jaxpr)


def _compile(title: str, step: Step, mesh: Mesh) -> Program:
  """Compile a step, or read what is kept of its program."""
  key = None
  if step.identity is not None:
    devices = kept_programs.describe_devices(mesh.devices)
    whole = {**step.identity, "mesh": dict(mesh.shape), "devices": devices}
    key = kept_programs.hash_program(whole)
    if (values := kept_programs.read(key)) is not None:
      try:
        memory = values.pop("memory")
        memory = None if memory is None else Memory(**memory)
        return Program(
          title, step.steps, step.shape, memory=memory, kept=True, **values
        )
      except (KeyError, TypeError):
        pass  # a damaged file is replaced
  program = _compile_now(title, step, mesh)
  if key is not None:
    values = dataclasses.asdict(program)
    for name in ("title", "steps", "shape", "kept"):
      del values[name]
    kept_programs.write(key, values)
  return program


def _compile_now(title: str, step: Step, mesh: Mesh) -> Program:
  begun = time.perf_counter()
  argument_bytes = sum(map(_device_bytes, jax.tree.leaves(step.arguments)))
  with sharding.use(mesh), warnings.catch_warnings():
    # jax's cache cannot load a program for devices that are not present.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache")
    traced = step.call.trace(*step.arguments)
    executed = counting.count_flops(traced.jaxpr)
    memory, needed, refused, counted, collectives = None, None, "", None, {}
    try:
      compiled = traced.lower().compile()
    except Exception as error:  # its type depends on the compiler
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      needed, refused = read_refusal(str(error), argument_bytes)
    else:
      analysis = compiled.memory_analysis()
      memory = Memory(
        analysis.argument_size_in_bytes,
        analysis.temp_size_in_bytes,
        analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        analysis.generated_code_size_in_bytes,
      )
      counted = (compiled.cost_analysis() or {}).get("flops")
      collectives = counting.count_collectives(compiled.as_text())
  return Program(
    title,
    step.steps,
    step.shape,
    memory,
    argument_bytes,
    needed,
    refused,
    executed,
    counted,
    collectives,
    time.perf_counter() - begun,
  )


def read_refusal(text: str, arguments: int) -> tuple[float | None, str]:
  """Parse the compiler's message that memory ran out.

  Args:
    text: The whole message.
    arguments: Bytes of the arguments per device.

  Returns:
    The bytes per device that the compiler asked for, or None if the message does not
    say, and the line that states the error.
  """
  line = " ".join(text.split("RESOURCE_EXHAUSTED:")[-1].strip().splitlines()[:1])
  match = re.search(r"(?:temporaries \(|Used )([\d.]+)([GMK])", text)
  if match is None:
    return None, line
  size = float(match[1]) * {"G": 2**30, "M": 2**20, "K": 2**10}[match[2]]
  return size + (arguments if "temporaries" in match[0] else 0), line


def _device_bytes(leaf: jax.ShapeDtypeStruct) -> int:
  return int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
