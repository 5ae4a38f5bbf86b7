"""The programs that compare embeddings, compiled for TPUs and GPUs that are not there.

    JAX_PLATFORMS=cpu python -m benchmarks.pairwise_topologies [--width=256] \
      [--topologies=v5e-4,v6e-4]

Needs the package libtpu (`pip install '.[tpu]'`), no TPU; for GPUs, such as h100-8,
jax's CUDA plug-in. A device computes tile by tile, and nothing is sent between devices,
so that a program is compiled for one device of a slice. For each program the table has
the operations and the memory of a call as the compiler tells them, and the pairs of
rows that a device compares in a second if it computes float32 products at the given
share of its peak: one of highest precision takes six of bfloat16.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from mllm_selector_jax.planning import topology
from mllm_selector_jax.selection import kmeans
from mllm_selector_jax.selection.pairwise import (
  cover_loop,
  farthest,
  kernels,
  leaders,
  row_tiles,
)

NEAREST = 64
CHUNK, CENTRES = 8192, 5000
GROUP = 2048  # rows
PASSES = 6  # products of bfloat16 in one of highest precision
SHARE = 0.4  # of the peak


def list_programs(width: int) -> dict[str, tuple]:
  """Lists functions with the shapes of their arguments, and how many pairs they see."""

  def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)

  size = row_tiles.SIZE
  marks = functools.partial(array, size, dtype=jnp.int32)
  tile = kernels.Tile(array(size, width), marks(), marks())
  pairs = size * size
  near = kernels.Nearest(array(size, NEAREST), array(size, NEAREST, dtype=jnp.int32))
  sums = kernels.Sums(marks(), marks())
  rows, number = farthest.BATCH_ROWS, array(dtype=jnp.int32)
  batch = (array(rows, width), array(rows), array(rows, dtype=jnp.int32))
  chunk = (array(CHUNK, width), array(CHUNK, dtype=bool), array(CENTRES, width))
  groups = cover_loop.BATCH_BYTES // (4 * GROUP * GROUP)
  covered = cover_loop.Batch(
    array(groups, GROUP, width),
    array(groups, GROUP, dtype=jnp.int64),
    array(groups, GROUP, dtype=bool),
    array(groups, dtype=jnp.int64),
  )
  return {
    "highest cosine": (kernels.highest, (array(size), tile, tile), pairs),
    f"{NEAREST} nearest": (kernels.nearest, (near, tile, tile), pairs),
    "Gaussian sums": (kernels.gaussian_sums, (sums, tile, tile), pairs),
    "leaders": (leaders._cosines_before, (tile,), pairs),
    "farthest first": (
      functools.partial(farthest._pick, farthest.BATCH_PICKS),
      (*batch, array(), number, number),
      None,
    ),
    "k-means": (
      functools.partial(kmeans._assign, block=CHUNK, scatter=False),
      chunk,
      CHUNK * CENTRES,
    ),
    f"covering, {groups} groups": (cover_loop.order_batch, (covered,), None),
  }


def compile_for(device, function, arguments):
  """Compiles a function of arrays of these shapes for a device."""
  here = SingleDeviceSharding(device)
  arguments = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), arguments
  )
  return jax.jit(function).lower(*arguments).compile()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--width", type=int, default=256, help="of an embedding")
  parser.add_argument("--topologies", default="v5e-4,v6e-4")
  flags = parser.parse_args()
  print(
    "| device | program | FLOPs | memory | pairs in a second |\n|---|---|---|---|---|"
  )
  for name in flags.topologies.split(","):
    found = topology.describe(name)
    with jax.enable_x64(True):
      programs = list_programs(flags.width)
    for what, (function, arguments, pairs) in programs.items():
      with jax.enable_x64(function is cover_loop.order_batch):
        compiled = compile_for(found.devices[0], function, arguments)
      memory = compiled.memory_analysis()
      used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
      used += memory.output_size_in_bytes
      flops = compiled.cost_analysis()["flops"]
      rate = pairs and pairs / (flops * PASSES / (found.peak * SHARE))
      told = f"{rate:.1e}" if rate else ""
      print(f"| {name} | {what} | {flops:.2e} | {used / 1e6:.1f} MB | {told} |")


if __name__ == "__main__":
  main()
