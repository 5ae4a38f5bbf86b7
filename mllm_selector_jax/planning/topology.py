"""Describes devices that need not be present, so that programs compile for them.

Both are described by jax.experimental.topologies. The TPU compiler is in the package
libtpu, the GPU compiler in jax's CUDA plug-in, and neither needs the device. Without
the plug-in as many fake CPU devices take the place of the GPUs, and the results are
estimates.
"""

import dataclasses
import importlib.util
import os
import re
from typing import Any

from mllm_selector_jax.training.peaks import PEAKS
from mllm_selector_jax.types import InputError

# By the name of the generation: jax's name of the device, GiB of memory that a program
# may use (Google publishes 16, 95 and 32 for v5e, v5p and v6e; the compilers of v5e and
# v6e allow a little less), and the units per chip that the number in a slice's name
# counts: 2 if it counts TensorCores, 1 if it counts chips.
TPUS = {
  "v5e": ("TPU v5 lite", 15.75, 1),
  "v5litepod": ("TPU v5 lite", 15.75, 1),
  "v5p": ("TPU v5", 95, 2),
  "v6e": ("TPU v6 lite", 31.25, 1),
}
# From NVIDIA's data sheets, where a GB is 10^9 bytes: jax's name of the device, its
# memory in bytes, and the bytes that it reads in a second.
GPUS = {
  "h100": ("NVIDIA H100 80GB HBM3", 80e9, 3.35e12),
  "h200": ("NVIDIA H200", 141e9, 4.8e12),
}
# What the compiler asks of a GPU of compute capability 9.0, in the form of its text
# (stream_executor.GpuTargetConfigProto).
HOPPER = """
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  core_count: 132
  fpus_per_core: 128
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  clock_rate_ghz: 1.98
  l2_cache_size: 52428800
  memory_bandwidth: {bandwidth:.0f}
  device_memory_size: {memory:.0f}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{kind}"
"""
GPUS_A_HOST = 8
FLAT = {
  a * b: f"{a}x{b}"
  for a, b in ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
}
CUBES = {
  a * b * c: f"{a}x{b}x{c}"
  for a, b, c in (
    *((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8)),
    *((4, 8, 8), (8, 8, 8), (8, 8, 16), (8, 16, 16), (16, 16, 16)),
  )
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """Described devices.

  Attributes:
    name: The name in the setting `plan.topology`.
    kind: jax's name of the device.
    platform: "tpu" or "gpu".
    memory: Memory of one device, in bytes.
    peak: Peak of one device, in bfloat16 FLOP/s.
    devices: The devices to make a mesh of.
    exact: Whether programs are compiled by the devices' own compiler.
  """

  name: str
  kind: str
  platform: str
  memory: float
  peak: float
  devices: tuple[Any, ...]
  exact: bool


def describe(name: str) -> Topology:
  """Describe the devices of a name such as "v5p-8", "v5e-16", "v6e:4x8" or "h200-8".

  The number counts TensorCores for v5p, as Google does: v5p-8 has 4 chips, which are 4
  devices. For v5e and v6e it counts chips. A colon is followed by the shape of the
  slice in chips.

  Raises:
    InputError: The name is unknown, or the compiler is not installed.
  """
  generation, size = parse(name)
  if generation in TPUS:
    return _describe_tpu(name, generation, size)
  kind, memory, _ = GPUS[generation]
  exact = _has_gpu_compiler()
  describe_devices = _describe_gpus if exact else _fake_devices
  devices = describe_devices(generation, int(size))
  return Topology(name, kind, "gpu", memory, PEAKS[kind], devices, exact)


def parse(name: str) -> tuple[str, str]:
  """Parse a name into the generation and the size.

  Returns:
    The generation, and the shape of a TPU slice in chips or the number of GPUs.

  Raises:
    InputError: The name is unknown.
  """
  match = re.fullmatch(r"([a-z0-9]+?)(?:-(\d+)|:(\d+(?:x\d+){1,2}))", name)
  generation = match[1] if match else ""
  if generation in TPUS:
    return generation, match[3] or find_shape(name, generation, int(match[2]))
  if generation in GPUS and match[2]:
    if int(match[2]) < 1:
      raise InputError(f"plan.topology={name!r}: 0 GPUs; give 1 or more.")
    return generation, match[2]
  raise InputError(
    f"plan.topology={name!r} is not known. Give a TPU slice, such as v5p-8, v5e-16 or"
    " v6e:4x8, or GPUs, such as h100-8 or h200-1."
  )


def find_shape(name: str, generation: str, count: int) -> str:
  """Return the shape of a slice in chips; `count` is in the units of its name."""
  cores = TPUS[generation][2]
  shapes = CUBES if generation == "v5p" else FLAT
  chips, remainder = divmod(count, cores)
  if remainder or chips not in shapes:
    slices = ", ".join(f"{generation}-{cores * n}" for n in shapes)
    raise InputError(f"plan.topology={name!r} is no slice; there are {slices}.")
  return shapes[chips]


def _describe_tpu(name: str, generation: str, shape: str) -> Topology:
  kind, memory, _ = TPUS[generation]
  if importlib.util.find_spec("libtpu") is None:
    raise InputError(
      f"plan.topology={name!r} needs the TPU compiler: pip install"
      " 'mllm_selector_jax[tpu]'. No TPU is needed."
    )
  # Keep the compiler from searching for a TPU host and from taking its lock.
  for variable, value in (
    ("TPU_SKIP_MDS_QUERY", "1"),
    ("TPU_WORKER_ID", "0"),
    ("TPU_WORKER_HOSTNAMES", "localhost"),
    ("TPU_ACCELERATOR_TYPE", "v5litepod-8"),
    ("TPU_STDERR_LOG_LEVEL", "3"),
    ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
  ):
    os.environ.setdefault(variable, value)
  from jax.experimental import topologies

  family = "v5e" if generation == "v5litepod" else generation
  sides = [int(side) for side in shape.split("x")]
  options = {} if max(sides) > 1 else {"chips_per_host_bounds": [1, 1, 1]}
  try:
    description = topologies.get_topology_desc(
      platform="tpu", topology_name=f"{family}:{shape}", **options
    )
  except Exception as error:  # the plug-in may raise errors of any type
    raise InputError(
      f"plan.topology={name!r}: the compiler knows no slice of {shape} chips"
      f" ({str(error).partition(chr(10))[0]})."
    ) from error
  devices = tuple(description.devices)
  assert devices[0].device_kind == kind, devices[0].device_kind
  return Topology(name, kind, "tpu", memory * 2**30, PEAKS[kind], devices, True)


def _has_gpu_compiler() -> bool:
  """Say whether jax's CUDA plug-in is installed."""
  if importlib.util.find_spec("jax_plugins") is None:
    return False
  names = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
  return any(importlib.util.find_spec(name) for name in names)


def _describe_gpus(generation: str, count: int) -> tuple[Any, ...]:
  import jax
  from jax.experimental import topologies

  kind, memory, bandwidth = GPUS[generation]
  jax.devices("cpu")  # finds the plug-ins
  hosts, rest = divmod(count, GPUS_A_HOST)
  shape = f"1x1x{count}" if rest else f"1x{hosts}x{GPUS_A_HOST}"
  description = topologies.get_topology_desc(
    platform="cuda",
    topology=shape,
    target_config=HOPPER.format(kind=kind, memory=memory, bandwidth=bandwidth),
  )
  return tuple(description.devices)


def _fake_devices(generation: str, count: int) -> tuple[Any, ...]:
  import jax

  try:
    jax.config.update("jax_num_cpu_devices", count)
  except RuntimeError:  # jax has its devices already
    pass
  devices = jax.devices("cpu")
  if len(devices) < count:
    raise InputError(
      f"plan.topology: {count} GPUs are replaced by as many CPU devices, and this"
      f" process has {len(devices)}. Set"
      f" XLA_FLAGS=--xla_force_host_platform_device_count={count}."
    )
  return tuple(devices[:count])
