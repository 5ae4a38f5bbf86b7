"""Lists the long stages of a run, with their FLOPs, time and money."""

import dataclasses
from typing import Any

import numpy as np

from mllm_selector_jax.inputs.questions import read_existing_questions
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.pipeline import flops
from mllm_selector_jax.pipeline.arms import arms
from mllm_selector_jax.pipeline.candidates import relate_budget
from mllm_selector_jax.pipeline.listed_rows import describe_costs
from mllm_selector_jax.pipeline.score_pool import make_options
from mllm_selector_jax.pipeline.scored_models import needs_seed
from mllm_selector_jax.planning import disk, estimate, hours
from mllm_selector_jax.planning.pool_figures import PoolFigures
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.scoring import engine, passes
from mllm_selector_jax.selection import budget


@dataclasses.dataclass(frozen=True)
class Job:
  """One long stage.

  Attributes:
    name: "seed", "score", "tune" or "evaluate".
    text: What the stage processes, for people.
    flops: Model FLOPs of the whole stage.
    factor: Executed FLOPs as a multiple of these.
  """

  name: str
  text: str
  flops: float
  factor: float = 1.0

  @property
  def executed(self) -> float:
    """FLOPs that the devices execute."""
    return self.factor * self.flops


def list_jobs(run: Run, config: MllmConfig, pool: Any) -> list[Job]:
  """Return the long stages of a run with their model FLOPs."""
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
  amount = budget.parse(run.cfg.seed.rows if stage == "seed" else relate_budget(run))
  costs = {budget.TOKENS: pool.tokens}
  if amount.unit == budget.FLOPS:
    costs[budget.FLOPS] = flops.count_mflops(pool, describe_costs(run))
  return budget.resolve_count(amount, pool.ok, costs, name=name)


def with_factors(jobs: list[Job], factors: dict[str, float]) -> list[Job]:
  """Return the jobs with what is executed, by name as a multiple of the model FLOPs.

  A seed whose step is that of the tune has its factor; an answer is taken to execute
  what the model asks for.
  """
  shared = {"seed": factors["tune"], **factors} if "tune" in factors else factors
  return [
    dataclasses.replace(job, factor=shared.get(job.name, job.factor)) for job in jobs
  ]


def count_seconds(jobs: list[Job], rate: hours.Rate) -> tuple[float, float]:
  """Return the least and the most seconds that all jobs take."""
  model, executed = (sum(job.flops for job in jobs), sum(job.executed for job in jobs))
  return rate.seconds(model, executed)


def format_jobs(
  jobs: list[Job],
  rate: hours.Rate | None,
  devices: int = 1,
  price: float | None = None,
) -> list[str]:
  """Format the jobs as lines: FLOPs, time, and money if there is a price.

  Args:
    jobs: The jobs.
    rate: How fast the devices are; None if no one would wait for them.
    devices: How many there are.
    price: Of one device for an hour.
  """
  lines = []
  whole = Job("in all", "", *_sum(jobs))
  for job in [*jobs, whole]:
    line = f"  {job.name:8} {job.text:42} {job.flops:8.3g} {job.executed:8.3g}  "
    if rate is None:
      lines.append(line + "not on this machine")
      continue
    seconds = rate.seconds(job.flops, job.executed)
    line += f"about {hours.duration_range(*seconds)}"
    if price is not None:
      line += f", {hours.cost_range(price, devices, *seconds)}"
    lines.append(line)
  lines[-1] += "" if rate is None else " (compilation and reading apart)"
  head = f"  {'stage':8} {'':42} {'model':>8} {'executed':>8}  FLOPs, and time"
  return [head + ("" if price is None else ", and cost"), *lines]


def _sum(jobs: list[Job]) -> tuple[float, float]:
  flops = sum(job.flops for job in jobs)
  return flops, sum(job.executed for job in jobs) / max(flops, 1.0)


def describe_disk(
  run: Run, config: MllmConfig, figures: PoolFigures, free: int
) -> list[str]:
  """Describe what will be written, and whether the disk has room for it.

  Args:
    run: The invocation.
    config: The base model's config.
    figures: The pool.
    free: Bytes that are free on the disk of the workdir.
  """
  pool = figures.table
  sections = {"tune": (run.cfg.tune, len(arms(run)))}
  if needs_seed(run):
    sections["seed"] = (run.cfg.seed, 1)
  items = disk.list_items(
    config,
    sections,
    int(pool.ok.sum()),
    count_rows(run, pool, "tune"),
    figures.record_bytes,
    figures.image_bytes,
    run.cfg.score.table is None,
  )
  return disk.format_items(items, run.workdir.path, free)
