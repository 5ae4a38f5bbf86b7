"""The real train and score steps, compiled for described devices.

Parameters, state and batches are shapes; nothing is allocated.
"""

import dataclasses
import re
import time
import warnings
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mllm_selector_jax import sharding
from mllm_selector_jax.data.packing import assembly
from mllm_selector_jax.models import mllm, splash
from mllm_selector_jax.models.axes import logical_axes
from mllm_selector_jax.models.config import LoraConfig, MllmConfig
from mllm_selector_jax.pipeline import fine_tune
from mllm_selector_jax.planning import counting
from mllm_selector_jax.scoring import engine
from mllm_selector_jax.scoring.score_step import make_score_step
from mllm_selector_jax.scoring.signals import list_token_signals
from mllm_selector_jax.training import optimizer as optimizers
from mllm_selector_jax.training import train_step
from mllm_selector_jax.types import Batch, Params


@dataclasses.dataclass(frozen=True)
class Memory:
  """Of one device, in bytes.

  Attributes:
    arguments: parameters, optimizer state and the batch.
    temporaries: activations, gathered parameters, gradients.
    outputs: what is not written over an argument.
    code: of the program.
    total: all of it at once.
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
  """A step, compiled.

  Attributes:
    title: "seed", "tune", "score".
    steps: how many a run of it has.
    shape: of its batch.
    memory: None where the compiler found that it does not fit.
    arguments: bytes of arguments a device, known in any case.
    needed: bytes a device that the compiler wanted where it gave up, as it said.
    refused: the compiler's words, then.
    executed: FLOPs of one step, of all devices: padding, recomputation and masked
      places of attention count.
    counted: FLOPs a device by the compiler's own count, which takes a loop's body
      once; None where it gave none.
    collectives: bytes a device and step by kind of collective.
    seconds: that compiling took.
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


def choose_attention(config: MllmConfig, platform: str, row_length: int) -> MllmConfig:
  """The config with the kernel that a run on those devices would take.

  cuDNN's cannot be compiled without its GPU; XLA's stands for it.
  """
  fast = platform == "tpu" and row_length % splash.BLOCKS[-1] == 0
  if config.attention == "auto":
    return dataclasses.replace(config, attention="splash" if fast else "xla")
  if config.attention == "cudnn":
    return dataclasses.replace(config, attention="xla")
  return config


def abstract_params(config: MllmConfig, mesh: Mesh) -> Params:
  """Shapes of the parameters, with how they lie."""
  params = mllm.abstract(config)
  layout = sharding.parameter_shardings(params, logical_axes(params), mesh)
  return jax.tree.map(_place, params, layout)


def abstract_batch(shape: assembly.Shape, mesh: Mesh) -> Batch:
  """Shapes of a batch, with how it lies."""
  rows = NamedSharding(mesh, sharding.ROWS)
  return Batch(
    *(
      what and jax.ShapeDtypeStruct(*what, sharding=rows)
      for what in assembly.describe_batch(shape)
    )
  )


def _place(leaf: Any, layout: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout)


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
  """The train step of a recipe on those rows of the pool.

  Args:
    title: for people.
    config: the base, with the computation's dtype and remat.
    section: the recipe.
    pool: the checked one.
    rows: of it.
    mesh: of described devices.
    platform: of the devices that they stand for.
    seed: of the order.
  """
  if section.lora.rank:
    adapter = LoraConfig(section.lora.rank, section.lora.alpha)
    config = dataclasses.replace(config, lora=adapter)
  ways = sharding.row_ways(mesh)
  side = config.vision.image_size
  planned = fine_tune.lay_out(section, pool, rows, seed, config.patches, side, ways)
  steps, shape = planned.steps, planned.largest
  config = choose_attention(config, platform, shape.length)
  options = fine_tune.make_options(section)
  trainable, frozen = train_step.split_params(
    abstract_params(config, mesh), options.trainable
  )
  optimizer = optimizers.make_optimizer(options.optimizer, len(steps))
  laid = train_step.lay_out_state(optimizer, trainable)
  moments = jax.tree.map(
    _place, jax.eval_shape(optimizer.init, trainable), laid.optimizer
  )
  fn = train_step.make_train_step(config, optimizer, laid, options.accumulate, ways)
  given = train_step.State(trainable, moments), frozen, abstract_batch(shape, mesh)
  return _compile(title, fn, given, mesh, len(steps), shape)


def compile_score(
  config: MllmConfig,
  options: engine.ScoreOptions,
  pool: Any,
  rows: np.ndarray,
  mesh: Mesh,
  platform: str,
) -> tuple[Program, engine.Layout]:
  """The step of the main pass over those rows, and how that pass goes."""
  layout = engine.lay_out(config, pool, rows, options, mesh, described=True)
  config = choose_attention(config, platform, layout.shape.length)
  plugged = list_token_signals(options.signals)
  fn = make_score_step(config, options.seed, True, plugged)
  given = abstract_params(config, mesh), abstract_batch(layout.shape, mesh)
  count = sum(part.steps for part in layout.parts)
  return _compile("score", fn, given, mesh, count, layout.shape), layout


def _compile(title, fn, given, mesh, steps, shape) -> Program:
  arguments = sum(map(_device_bytes, jax.tree.leaves(given)))
  begun = time.perf_counter()
  with sharding.use(mesh), warnings.catch_warnings():
    # A program for devices that are not there cannot come out of jax's cache.
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache")
    traced = fn.trace(*given)
    executed = counting.count_flops(traced.jaxpr)
    memory, needed, refused, counted, collectives = None, None, "", None, {}
    try:
      compiled = traced.lower().compile()
    except Exception as error:  # of many kinds
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      needed, refused = read_refusal(str(error), arguments)
    else:
      found = compiled.memory_analysis()
      memory = Memory(
        found.argument_size_in_bytes,
        found.temp_size_in_bytes,
        found.output_size_in_bytes - found.alias_size_in_bytes,
        found.generated_code_size_in_bytes,
      )
      counted = (compiled.cost_analysis() or {}).get("flops")
      collectives = counting.count_collectives(compiled.as_text())
  seconds = time.perf_counter() - begun
  return Program(
    title,
    steps,
    shape,
    memory,
    arguments,
    needed,
    refused,
    executed,
    counted,
    collectives,
    seconds,
  )


def read_refusal(text: str, arguments: int) -> tuple[float | None, str]:
  """What the compiler needed, in bytes, and its words, where memory ran out."""
  line = " ".join(text.split("RESOURCE_EXHAUSTED:")[-1].strip().splitlines()[:1])
  found = re.search(r"(?:temporaries \(|Used )([\d.]+)([GMK])", text)
  if found is None:
    return None, line
  size = float(found[1]) * {"G": 2**30, "M": 2**20, "K": 2**10}[found[2]]
  return size + (arguments if "temporaries" in found[0] else 0), line


def _device_bytes(leaf: jax.ShapeDtypeStruct) -> int:
  return int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
