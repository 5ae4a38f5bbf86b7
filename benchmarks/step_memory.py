"""What `plan` says that a training step needs, beside what a process takes on a CPU.

    python -m benchmarks.step_memory [--forms=qwen2_5_vl,qwen3_vl,llava_next]

For each form a fresh process compiles the step of a small model as `plan` does, fills
its arguments with zeros and runs it. Prints the memory that `plan` reports and that by
which the process's peak exceeds what it held before the arguments were made.
"""

import argparse
import ctypes
import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path


def read_status(name: str) -> float:
  """A size in bytes from the kernel's account of this process."""
  for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith(f"{name}:"):
      return float(line.split()[1]) * 1024
  raise KeyError(name)


def measure(name: str) -> None:
  """Prints the comparison for a form."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from benchmarks import tiled_models, tiled_pools
  from mllm_selector_jax import sharding
  from mllm_selector_jax.configs import default
  from mllm_selector_jax.planning import programs

  form, factor, _ = tiled_models.scale_form(name, 32)
  with tempfile.TemporaryDirectory() as folder:
    config, _, _ = tiled_models.make_model(name, "medium", form, Path(folder))
  config = dataclasses.replace(config, remat="full")
  drawn = tiled_pools.draw_pool(1000)
  sizes = np.maximum(4, np.rint(drawn.sizes * factor)).astype(int)
  pool = tiled_pools.describe(drawn._replace(sizes=sizes), form)
  section = default.get_config().tune
  section.batch, section.row_length = 128, 1024
  rows = tiled_pools.keep_rows(pool, section.row_length)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  arguments = config, section, pool, rows, mesh, "cpu"
  planned = programs.compile_train("tune", *arguments).memory
  step = programs.describe_train(*arguments)
  assert planned is not None
  with sharding.use(mesh):
    compiled = step.call.lower(*step.arguments).compile()
    ctypes.CDLL(None).malloc_trim(0)
    held = read_status("VmRSS")
    filled = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), step.arguments)
    jax.block_until_ready(filled)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    jax.block_until_ready(compiled(*filled))
  taken = read_status("VmHWM") - held
  print(
    f"{name}: {step.shape.rows} rows x {step.shape.length} tokens,"
    f" {step.shape.tiles} tiles; plan {planned.total / 2**20:.0f} MiB (arguments"
    f" {planned.arguments / 2**20:.0f}, temporaries {planned.temporaries / 2**20:.0f}),"
    f" taken {taken / 2**20:.0f} MiB, {taken / planned.total:.3f} of it",
    flush=True,
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--forms", default="qwen2_5_vl,qwen3_vl,llava_next")
  parser.add_argument("--here", action="store_true", help="in this process")
  arguments = parser.parse_args()
  for name in arguments.forms.split(","):
    if arguments.here:
      measure(name)
      continue
    command = [sys.executable, "-m", "benchmarks.step_memory", "--here"]
    subprocess.run([*command, f"--forms={name}"], check=True)


if __name__ == "__main__":
  main()
