"""Lists the long stages of a run, their FLOPs and disk, and compiles their steps."""

import shutil
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mllm_selector_jax import sharding
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.questions import read_existing_questions
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.pipeline.arms import arms
from mllm_selector_jax.pipeline.candidates import relate_budget
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
    name: "seed", "score", "tune" or "evaluate".
    text: What the stage processes, for people.
    flops: FLOPs of the whole stage.
  """

  name: str
  text: str
  flops: float


def list_jobs(run: Run, config: MllmConfig, pool: Any) -> list[Job]:
  """Return the long stages of a run with their FLOPs."""
  rows = np.flatnonzero(pool.ok)
  seed, tune = run.cfg.seed, run.cfg.tune
  jobs = []
  if needs_seed(run):
    count = count_rows(run, pool, "seed")
    row_flops = estimate.train_flops(config, seed, pool, rows)
    text = f"{count:,} rows x {seed.epochs} epochs"
    jobs.append(Job("seed", text, row_flops * count * seed.epochs))
  if run.cfg.score.table is None:
    options = make_options(run.cfg)
    packed = engine.plan_pass(passes.MAIN, pool, rows, options)
    row_flops = estimate.score_flops(config, pool, rows, packed)
    count = len(passes.list_passes(options.signals))
    tokens = int(packed.tokens(pool.tokens[rows]).sum())
    factor = f" x {count} passes" if count > 1 else ""
    jobs.append(
      Job("score", f"{len(rows):,} rows, {tokens:,} tokens{factor}", row_flops * count)
    )
  kept = count_rows(run, pool, "tune")
  row_flops = estimate.train_flops(config, tune, pool, rows)
  for arm in arms(run):
    text = f"{kept:,} rows x {tune.epochs} epochs ({arm})"
    jobs.append(Job("tune", text, row_flops * kept * tune.epochs))
  if asked_questions := read_existing_questions(run):
    mean = float(pool.tokens[rows].mean())
    tiles = float(pool.tiles[rows].mean())
    new = run.cfg.evaluate.max_new_tokens
    row_flops = estimate.answer_flops(config, mean, new, max(1.0, tiles))
    text = f"{len(asked_questions):,} questions x {len(arms(run))} arms"
    jobs.append(
      Job("evaluate", text, row_flops * len(asked_questions) * len(arms(run)))
    )
  return jobs


def count_rows(run: Run, pool: Any, stage: str) -> int:
  """Count the rows that the stage `seed` or `tune` trains on."""
  name = "seed.rows" if stage == "seed" else "select.budget"
  amount = run.cfg.seed.rows if stage == "seed" else relate_budget(run)
  return budget.resolve_count(amount, pool.ok, pool.tokens, name=name)


def describe_disk(run: Run, config: MllmConfig, rows: int) -> list[str]:
  """Describe how much will be written, and whether the disk has room for it."""
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
  """Compile the steps of a run, and yield a description of each."""
  sections = {"tune": run.cfg.tune}
  if needs_seed(run) and _recipe(run.cfg.seed) != _recipe(run.cfg.tune):
    sections["seed"] = run.cfg.seed
  counts = {name: count_rows(run, pool, name) for name in sections}
  score = None if run.cfg.score.table is not None else make_options(run.cfg)
  settings = run.cfg.mesh.to_dict(), run.cfg.rng_seed
  arguments = config, sections, counts, score, pool, topology, *settings
  yield from describe_steps(*arguments)
  if needs_seed(run) and "seed" not in sections:
    yield "seed: the same step as for tune."


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
  """Compile training and scoring steps for some devices, and describe them.

  Args:
    config: Config of the base model, with the dtype of the computation.
    sections: Training sections of the config by name.
    counts: How many randomly drawn rows each of them trains on.
    score: Options of the scoring; None leaves it out.
    pool: The checked pool.
    topology: The devices.
    mesh: Sizes of the mesh axes, as in `cfg.mesh`.
    seed: Seed of the drawn rows and their order.
  """
  devices = sharding.make_mesh(**mesh, devices=list(topology.devices))
  base_model.check_model_mesh(devices, config)
  shape = dict(devices.shape)
  axes = ", ".join(f"{name}={size}" for name, size in shape.items())
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
  yield (
    f"{topology.name}: {len(topology.devices)} x {topology.kind},"
    f" {advice.size(topology.memory)} each; {axes}; {config.dtype}. Compiling {how}."
    " A step of a 7B model takes some minutes to compile."
  )
  for name, section in sections.items():
    check_section(section, name)
    rows = base_model.draw_rows(pool, counts[name], seed)
    program = programs.compile_train(
      name, config, section, pool, rows, devices, topology.platform, seed
    )
    samples = count_samples(len(rows), program.steps, section.batch) / program.steps
    flops = estimate.train_flops(config, section, pool, rows) * samples
    trainable = estimate.count_trainable(config, section)
    settings = advice.Settings(shape, config.remat, section, name, trainable)
    yield advice.describe(program, topology, flops, settings)
  if score is not None:
    rows = np.flatnonzero(pool.ok)
    program, layout = programs.compile_score(
      config, score, pool, rows, devices, topology.platform
    )
    flops = estimate.score_flops(config, pool, rows, layout.plan) / program.steps
    settings = advice.Settings(shape, config.remat)
    yield advice.describe(program, topology, flops, settings)


def _recipe(section: Any) -> dict[str, Any]:
  """Return the settings of a training that its compiled step depends on."""
  irrelevant = ("rows", "epochs", "save_every", "threads", "spike")
  return {k: v for k, v in section.to_dict().items() if k not in irrelevant}
