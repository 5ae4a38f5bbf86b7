"""What a run's long stages go over, their FLOPs, their disk and their programs."""

import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mllm_selector_jax import sharding
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.questions import questions_there
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.pipeline.arms import arms
from mllm_selector_jax.pipeline.flops import count_samples
from mllm_selector_jax.pipeline.score_pool import make_options
from mllm_selector_jax.pipeline.scored_models import needs_seed
from mllm_selector_jax.pipeline.tuning_recipe import check_section
from mllm_selector_jax.planning import advice, estimate, programs
from mllm_selector_jax.planning.topology import Topology
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import engine, passes
from mllm_selector_jax.selection import budget


class Job(NamedTuple):
  """One long stage.

  Attributes:
    name: "seed", "score", "tune", "evaluate".
    text: what it goes over.
    flops: of all of it.
  """

  name: str
  text: str
  flops: float


def list_jobs(run: Run, config: MllmConfig, pool: Any) -> list[Job]:
  """The long stages of a run with their FLOPs."""
  rows = np.flatnonzero(pool.ok)
  seed, tune = run.cfg.seed, run.cfg.tune
  jobs = []
  if needs_seed(run):
    count = count_rows(run, pool, "seed")
    each = estimate.train_flops(config, seed, pool, rows)
    text = f"{count:,} rows x {seed.epochs} epochs"
    jobs.append(Job("seed", text, each * count * seed.epochs))
  if run.cfg.score.table is None:
    options = make_options(run.cfg)
    packed = engine.plan_pass(passes.MAIN, pool, rows, config.patches, options)
    each = estimate.score_flops(config, pool, rows, packed)
    count = len(passes.list_passes(options.signals))
    tokens = int(packed.tokens(pool.tokens[rows]).sum())
    more = f" x {count} passes" if count > 1 else ""
    jobs.append(
      Job("score", f"{len(rows):,} rows, {tokens:,} tokens{more}", each * count)
    )
  kept = count_rows(run, pool, "tune")
  each = estimate.train_flops(config, tune, pool, rows)
  for arm in arms(run):
    text = f"{kept:,} rows x {tune.epochs} epochs ({arm})"
    jobs.append(Job("tune", text, each * kept * tune.epochs))
  if asked := questions_there(run):
    mean = float(pool.tokens[rows].mean())
    each = estimate.answer_flops(config, mean, run.cfg.evaluate.max_new_tokens)
    text = f"{len(asked):,} questions x {len(arms(run))} arms"
    jobs.append(Job("evaluate", text, each * len(asked) * len(arms(run))))
  return jobs


def count_rows(run: Run, pool: Any, stage: str) -> int:
  """Rows that `seed` or `tune` has, by its budget."""
  name = "seed.rows" if stage == "seed" else "select.budget"
  text = run.cfg.seed.rows if stage == "seed" else run.cfg.select.budget
  return budget.resolve_count(text, pool.ok, pool.tokens, name=name)


def describe_disk(run: Run, config: MllmConfig, rows: int) -> list[str]:
  """How much is written, and whether there is room."""
  sections = [run.cfg.tune] * len(arms(run))
  sections += [run.cfg.seed] if needs_seed(run) else []
  disk = estimate.disk_bytes(config, sections, rows)
  free = shutil.disk_usage(run.workdir.path).free
  lines = [
    f"  disk: about {disk / 1e9:.2f} GB under {run.workdir.path}, where"
    f" {free / 1e9:.1f} GB are free"
  ]
  if disk > free:
    lines.append("  Warning: that is not enough; make room or give another --workdir.")
  return lines


def compile_steps(
  run: Run, config: MllmConfig, pool: Any, topology: Topology
) -> Iterator[str]:
  """Compiles what a run would, and says what it found."""
  sections = {"tune": run.cfg.tune}
  if needs_seed(run) and _recipe(run.cfg.seed) != _recipe(run.cfg.tune):
    sections["seed"] = run.cfg.seed
  counts = {name: count_rows(run, pool, name) for name in sections}
  score = None if run.cfg.score.table is not None else make_options(run.cfg)
  settings = run.cfg.mesh.to_dict(), run.cfg.rng_seed
  given = config, sections, counts, score, pool, topology, *settings
  yield from describe_steps(*given)
  if needs_seed(run) and "seed" not in sections:
    yield "seed: the step is tune's."


def describe_steps(
  config: MllmConfig,
  sections: dict[str, Any],
  counts: dict[str, int],
  score: engine.ScoreOptions | None,
  pool: Any,
  topology: Topology,
  mesh: dict[str, int],
  seed: int = 0,
) -> Iterator[str]:
  """Text about the steps of trainings and of scoring, compiled for those devices.

  Args:
    config: of the base, with the computation's dtype.
    sections: recipes by their names.
    counts: rows that each has; which ones is drawn at random.
    score: how scoring goes; None leaves it out.
    pool: the checked one.
    topology: the devices.
    mesh: as cfg.mesh has it.
    seed: of draws and orders.
  """
  devices = sharding.make_mesh(**mesh, devices=list(topology.devices))
  base_model.check_model_mesh(devices, config)
  shape = dict(devices.shape)
  axes = ", ".join(f"{name}={size}" for name, size in shape.items())
  how = "ahead of time by their own compiler; nothing is allocated"
  if not topology.exact:
    how = (
      "for as many CPU devices, which is an ESTIMATE: without the GPU its compiler"
      " cannot be asked; the CPU's holds bfloat16 temporaries in float32 and the"
      " attention of all pairs, so that memory is an upper bound"
    )
  yield (
    f"{topology.name}: {len(topology.devices)} x {topology.kind},"
    f" {advice.size(topology.memory)} each; {axes}; {config.dtype}. Compiling {how}."
    " A model of 7B takes some minutes a step."
  )
  for name, section in sections.items():
    check_section(section, name)
    rows = base_model.draw_rows(pool, counts[name], seed)
    given = name, config, section, pool, rows, devices, topology.platform, seed
    program = programs.compile_train(*given)
    samples = count_samples(len(rows), program.steps, section.batch) / program.steps
    flops = estimate.train_flops(config, section, pool, rows) * samples
    trainable = estimate.count_trainable(config, section)
    own = advice.Settings(shape, config.remat, section, name, trainable)
    yield advice.describe(program, topology, flops, own)
  if score is not None:
    rows = np.flatnonzero(pool.ok)
    given = config, score, pool, rows, devices, topology.platform
    program, layout = programs.compile_score(*given)
    flops = estimate.score_flops(config, pool, rows, layout.plan) / program.steps
    own = advice.Settings(shape, config.remat)
    yield advice.describe(program, topology, flops, own)


def _recipe(section: Any) -> dict[str, Any]:
  """What the program of a training follows from."""
  without = ("rows", "epochs", "save_every", "threads", "spike")
  return {k: v for k, v in section.to_dict().items() if k not in without}
