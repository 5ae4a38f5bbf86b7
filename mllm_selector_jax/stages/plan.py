"""plan: estimates memory, time, money and disk before anything long starts."""

import shutil
import sys

from mllm_selector_jax import listing
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.planning import estimate, fitting, jobs
from mllm_selector_jax.planning.advice import size
from mllm_selector_jax.planning.hours import LONG, Rate, find_price, read_prices
from mllm_selector_jax.planning.pool_figures import PoolFigures, find_pool
from mllm_selector_jax.planning.run_steps import read_steps
from mllm_selector_jax.planning.topology import describe, parse, rank, reserve
from mllm_selector_jax.runs.context import Run


def plan(run: Run) -> None:
  """Says how much memory, time, money and disk the long stages will need."""
  if run.cfg.model.path != "demo":
    # Of a hub's model only the files that describe it are fetched.
    folder = huggingface.find_model(run.cfg.model.path, weights=False)
    run = run.at(settings={"model.path": str(folder)})
  figures = find_pool(run)
  run.say(figures.text)
  prices = read_prices(run.cfg.plan.price)
  names = listing.split_names(run.cfg.plan.topology)
  if names:
    _plan_for(run, figures, rank(names, prices), prices)
  else:
    _plan_here(run, figures)
  config = _read_config(run, base_model.dtype(run))
  free = shutil.disk_usage(run.workdir.path).free
  run.say("\n".join(jobs.describe_disk(run, config, figures, free)))


def _plan_for(
  run: Run, figures: PoolFigures, names: list[str], prices: dict[str, float]
) -> None:
  """Plans for the first devices that the run fits, of those that are named."""
  reserve(names)  # before any other use of jax
  fit = None
  for name in names:
    topology = describe(name)
    dtype = run.cfg.model.dtype
    config = _read_config(run, "bfloat16" if dtype == "auto" else dtype)
    fit = fitting.find_fit(run, config, figures.table, topology, run.say)
    if fit.fits:
      break
  assert fit is not None
  topology, changed = fit.topology, run.at(settings=fit.changes)
  factors = {name: step.factor for name, step in fit.steps.items()}
  listed = jobs.list_jobs(changed, config, figures.table)
  listed = jobs.with_factors(listed, factors)
  devices = len(topology.devices)
  rate = Rate(topology.peak * devices, run.cfg.plan.mfu)
  price = find_price(prices, parse(topology.name)[0])
  lines = [f"The plan for {devices} x {topology.kind} ({rate.describe()}):"]
  run.say("\n".join(lines + jobs.format_jobs(listed, rate, devices, price)))
  if fit.fits:
    needs = ", ".join(
      f"{name} {size(step.program.memory.total)}"
      for name, step in fit.steps.items()
      if step.program.memory is not None
    )
    command = fitting.format_command(sys.argv, fit.changes, topology.platform)
    run.say(
      f"It fits {topology.name} ({needs} of {size(topology.memory)} per device):\n"
      f"  {command}"
    )
    return
  larger = fitting.find_larger(fit)
  run.say(
    f"No change of settings makes it fit {', '.join(names)}. "
    + (
      f"Plan for more devices: --config.plan.topology={larger}."
      if larger
      else "Plan for devices with more memory, or give a smaller model."
    )
  )


def _plan_here(run: Run, figures: PoolFigures) -> None:
  """Plans for the devices of this process."""
  import jax

  dtype = base_model.dtype(run)
  config = _read_config(run, dtype)
  steps = read_steps(run, config, figures.table)
  platform = jax.default_backend()
  listed = jobs.list_jobs(run, config, figures.table)
  listed = jobs.with_factors(listed, steps.trace(run.mesh, platform))
  rate = Rate(estimate.measure_matmul(dtype), run.cfg.plan.mfu)
  waits = platform != "cpu" or jobs.count_seconds(listed, rate)[0] <= LONG
  kind = jax.devices()[0].device_kind
  lines = [
    f"The plan for {run.mesh.size} x {kind} here, whose peak is a matrix product's,"
    f" measured now ({rate.describe()}):"
  ]
  lines += jobs.format_jobs(listed, rate if waits else None)
  if not waits:
    lines.append(
      "  This CPU would take weeks. Give devices that need not be present, such as"
      " --config.plan.topology=h100-8 or v5e-8, several separated by commas."
    )
  run.say("\n".join(lines))


def _read_config(run: Run, dtype: str) -> MllmConfig:
  return huggingface.read_config(
    base_model.base_path(run),
    dtype=dtype,
    remat=run.cfg.model.remat,
    attention=run.cfg.model.attention,
  )
