"""The steps of a run, compiled or only traced for some devices."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from mllm_selector_jax import sharding
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.pipeline.flops import count_samples
from mllm_selector_jax.pipeline.score_pool import make_options
from mllm_selector_jax.pipeline.scored_models import needs_seed
from mllm_selector_jax.pipeline.tuning_recipe import check_section
from mllm_selector_jax.planning import advice, estimate, programs
from mllm_selector_jax.planning.jobs import count_rows
from mllm_selector_jax.planning.topology import Topology
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import engine


class CompiledStep(NamedTuple):
  """A step that was compiled for some devices.

  Attributes:
    program: What the compiler says of it.
    model_flops: Model FLOPs of one step.
    settings: Those that may be changed if it does not fit.
  """

  program: programs.Program
  model_flops: float
  settings: advice.Settings

  @property
  def factor(self) -> float:
    """Executed FLOPs as a multiple of the model's."""
    return self.program.executed / self.model_flops


@dataclasses.dataclass(frozen=True)
class RunSteps:
  """What the steps of a run follow from.

  Attributes:
    config: Config of the base model, with the dtype of the computation.
    sections: Training sections of the config by name.
    counts: How many randomly drawn rows each of them trains on.
    score: Options of the scoring; None leaves it out.
    pool: The checked pool, or one with its columns.
    seed: Seed of the drawn rows and their order.
  """

  config: MllmConfig
  sections: dict[str, Any]
  counts: dict[str, int]
  score: engine.ScoreOptions | None
  pool: Any
  seed: int = 0

  @property
  def names(self) -> list[str]:
    """Names of the steps."""
    return [*self.sections, *([] if self.score is None else ["score"])]

  def compile(self, name: str, mesh: Mesh, platform: str) -> CompiledStep:
    """Compile one step for devices that need not be present.

    Args:
      name: One of `names`.
      mesh: Mesh of the devices.
      platform: Platform of the devices, "tpu" or "gpu".
    """
    shape = dict(mesh.shape)
    if name == "score":
      assert self.score is not None
      rows = np.flatnonzero(self.pool.ok)
      program, layout = programs.compile_score(
        self.config, self.score, self.pool, rows, mesh, platform
      )
      flops = estimate.score_flops(self.config, self.pool, rows, layout.plan)
      settings = advice.Settings(shape, self.config.remat)
      return CompiledStep(program, flops / program.steps, settings)
    section, rows = self.sections[name], self._draw(name)
    program = programs.compile_train(
      name, self.config, section, self.pool, rows, mesh, platform, self.seed
    )
    flops = self._count_train(section, rows, program.steps)
    trainable = estimate.count_trainable(self.config, section)
    settings = advice.Settings(shape, self.config.remat, section, name, trainable)
    return CompiledStep(program, flops, settings)

  def trace(self, mesh: Mesh, platform: str) -> dict[str, float]:
    """Return by name what each step executes, as a multiple of its model FLOPs."""
    factors = {}
    for name, section in self.sections.items():
      rows = self._draw(name)
      step = programs.describe_train(
        self.config, section, self.pool, rows, mesh, platform, self.seed
      )
      flops = self._count_train(section, rows, step.steps)
      factors[name] = programs.count_executed(step, mesh) / flops
    if self.score is not None:
      rows = np.flatnonzero(self.pool.ok)
      step, layout = programs.describe_score(
        self.config, self.score, self.pool, rows, mesh, platform
      )
      flops = estimate.score_flops(self.config, self.pool, rows, layout.plan)
      factors["score"] = programs.count_executed(step, mesh) * step.steps / flops
    return factors

  def _draw(self, name: str) -> np.ndarray:
    check_section(self.sections[name], name)
    return base_model.draw_rows(self.pool, self.counts[name], self.seed)

  def _count_train(self, section: Any, rows: np.ndarray, steps: int) -> float:
    samples = count_samples(len(rows), steps, section.batch) / steps
    return estimate.train_flops(self.config, section, self.pool, rows) * samples


def read_steps(run: Run, config: MllmConfig, pool: Any) -> RunSteps:
  """Read from a run's config which steps it has.

  A seed with the recipe of the tune has no step of its own.
  """
  sections = {"tune": run.cfg.tune}
  if needs_seed(run) and not shares_step(run):
    sections["seed"] = run.cfg.seed
  return RunSteps(
    dataclasses.replace(config, remat=run.cfg.model.remat),
    sections,
    {name: count_rows(run, pool, name) for name in sections},
    None if run.cfg.score.table is not None else make_options(run.cfg),
    pool,
    run.cfg.rng_seed,
  )


def shares_step(run: Run) -> bool:
  """Say whether the seed is trained by the same step as the tune."""
  return needs_seed(run) and _recipe(run.cfg.seed) == _recipe(run.cfg.tune)


def make_mesh(topology: Topology, mesh: dict[str, int], config: MllmConfig) -> Mesh:
  """Make the mesh of described devices, and refuse one that cuts a head."""
  devices = sharding.make_mesh(**mesh, devices=list(topology.devices))
  base_model.check_model_mesh(devices, config)
  return devices


def describe_devices(topology: Topology, mesh: Mesh, dtype: str) -> str:
  """Say for which devices steps are compiled, and how."""
  axes = ", ".join(f"{name}={size}" for name, size in dict(mesh.shape).items())
  how = "ahead of time by their own compiler; nothing is allocated"
  if not topology.exact:
    how = (
      "for as many CPU devices, which is an ESTIMATE: the GPU's compiler is not"
      " installed (pip install 'mllm_selector_jax[cuda12]'; no GPU is needed). The"
      " CPU's compiler stores bfloat16 temporaries in float32, and attention weights"
      " of all pairs of tokens, so the memory is an upper bound"
    )
  elif topology.platform == "gpu":
    how += (
      ". Attention is XLA's, since cuDNN's kernel needs the GPU; with cuDNN's, a step"
      " takes less memory and executes fewer FLOPs"
    )
  return (
    f"{topology.name}: {len(topology.devices)} x {topology.kind},"
    f" {advice.size(topology.memory)} each for programs; {axes}; {dtype}. Compiling"
    f" {how}. A step of a 7B model takes some minutes to compile, once; its figures are"
    " kept."
  )


def describe_steps(
  steps: RunSteps, topology: Topology, mesh: dict[str, int]
) -> Iterator[str]:
  """Compile the steps for some devices, and describe them.

  Args:
    steps: The steps.
    topology: The devices.
    mesh: Sizes of the mesh axes, as in `cfg.mesh`.
  """
  devices = make_mesh(topology, mesh, steps.config)
  yield describe_devices(topology, devices, steps.config.dtype)
  for name in steps.names:
    found = steps.compile(name, devices, topology.platform)
    yield advice.describe(found.program, topology, found.model_flops, found.settings)


def _recipe(section: Any) -> dict[str, Any]:
  """Return the settings of a training that its compiled step depends on."""
  irrelevant = ("rows", "epochs", "save_every", "threads", "spike")
  return {k: v for k, v in section.to_dict().items() if k not in irrelevant}
