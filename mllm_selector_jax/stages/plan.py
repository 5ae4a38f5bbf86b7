"""plan: estimates memory, time and disk before anything long starts."""

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.planning import estimate
from mllm_selector_jax.planning.estimate import duration
from mllm_selector_jax.planning.jobs import compile_steps, describe_disk, list_jobs
from mllm_selector_jax.planning.topology import describe
from mllm_selector_jax.runs.context import Run


def plan(run: Run) -> None:
  """Says how much memory, time and disk the long stages will need."""
  mfu = run.cfg.plan.mfu
  pool = base_model.open_pool(run)
  # Before any use of jax, since this may have to set the number of CPU devices.
  topology = run.cfg.plan.topology and describe(run.cfg.plan.topology)
  dtype = base_model.dtype(run)
  if topology and run.cfg.model.dtype == "auto":
    dtype = "bfloat16"
  config = huggingface.read_config(
    base_model.base_path(run),
    dtype=dtype,
    remat=run.cfg.model.remat,
    attention=run.cfg.model.attention,
  )
  jobs = list_jobs(run, config, pool)
  if topology:
    for text in compile_steps(run, config, pool, topology):
      run.say(text)
    rate = topology.peak * len(topology.devices) * mfu
    basis = f"{len(topology.devices)} x {topology.kind} at an MFU of {mfu:.0%}"
  else:
    rate = estimate.measure_matmul(dtype) * estimate.EFFICIENCY
    basis = "rough: FLOPs over the matmul rate measured here"
  lines = [f"The plan ({basis}):"]
  for job in jobs:
    lines.append(f"  {job.name:8} {job.text:42} about {duration(job.flops / rate)}")
  total = duration(sum(job.flops for job in jobs) / rate)
  lines.append(f"  {'in all':8} {'':42} about {total}, compilation apart")
  run.say("\n".join(lines + describe_disk(run, config, int(pool.ok.sum()))))
