"""Describes devices that need not be present, so that programs compile for them.

Both are described by jax.experimental.topologies. The TPU compiler is in the package
libtpu, the GPU compiler in jax's CUDA plug-in, and neither needs the device. Without
the plug-in as many fake CPU devices take the place of the GPUs, and the results are
estimates.
"""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mllm_selector_jax.planning.device_kinds import (
  CUBES,
  FLAT,
  GPU_SHARE,
  GPUS,
  GPUS_A_HOST,
  TPUS,
  format_target,
  list_sizes,
)
from mllm_selector_jax.training.peaks import PEAKS
from mllm_selector_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class Topology:
  """Described devices.

  Attributes:
    name: The name in the setting `plan.topology`.
    kind: jax's name of the device.
    platform: "tpu" or "gpu".
    memory: Memory of one device that a program may use, in bytes.
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

  The number counts TensorCores for v4 and v5p, as Google does: v5p-8 has 4 chips, which
  are 4 devices. For v5e, v6e and GPUs it counts devices. A colon is followed by the
  shape of a slice in chips.

  Raises:
    InputError: The name is unknown, or the compiler is not installed.
  """
  generation, size = parse(name)
  if generation in TPUS:
    return _describe_tpu(name, generation, size)
  gpu = GPUS[generation]
  exact = _has_gpu_compiler()
  devices = _describe_gpus(generation, int(size)) if exact else _fake_devices(int(size))
  memory = GPU_SHARE * gpu.memory
  return Topology(name, gpu.kind, "gpu", memory, PEAKS[gpu.kind], devices, exact)


def reserve(names: Sequence[str]) -> None:
  """Make as many CPU devices as the most GPUs of some names, if they are needed.

  jax does not make more of them later.
  """
  counts = [int(size) for kind, size in map(parse, names) if kind in GPUS]
  if counts and not _has_gpu_compiler():
    _fake_devices(max(counts))


def parse(name: str) -> tuple[str, str]:
  """Parse a name into the generation and the size.

  Returns:
    The generation, and the shape of a TPU slice in chips or the number of GPUs.

  Raises:
    InputError: The name is unknown.
  """
  match = re.fullmatch(r"([a-z0-9]+?(?:-\d+gb)?)(?:-(\d+)|:(\d+(?:x\d+){1,2}))", name)
  generation = match[1] if match else ""
  if generation in TPUS:
    return generation, match[3] or find_shape(name, generation, int(match[2]))
  if generation in GPUS and match[2]:
    if int(match[2]) < 1:
      raise InputError(f"plan.topology={name!r}: 0 GPUs; give 1 or more.")
    return generation, match[2]
  raise InputError(
    f"plan.topology={name!r} is not known. Give a TPU slice, such as v5p-8, v5e-16 or"
    f" v6e:4x8 (there are {', '.join(TPUS)}), or GPUs, such as h100-8 or a100-40gb-4"
    f" (there are {', '.join(GPUS)})."
  )


def rank(names: Sequence[str], prices: Mapping[str, float]) -> list[str]:
  """Order devices by what an hour of all of them costs, the cheapest first.

  Those without a price follow, the ones of the least FLOP/s first.

  Args:
    names: Names as `describe` takes them.
    prices: Of a device hour, by generation; the key "" is for all others.

  Raises:
    InputError: A name is unknown.
  """

  def key(name: str) -> tuple[bool, float]:
    generation, size = parse(name)
    devices = math.prod(int(side) for side in size.split("x"))
    price = prices.get(generation, prices.get(""))
    kind = (TPUS | GPUS)[generation].kind
    return price is None, devices * (PEAKS[kind] if price is None else price)

  return sorted(names, key=key)


def find_shape(name: str, generation: str, count: int) -> str:
  """Return the shape of a slice in chips; `count` is in the units of its name."""
  tpu = TPUS[generation]
  shapes = CUBES if tpu.cubic else FLAT
  chips, remainder = divmod(count, tpu.units)
  if remainder or chips not in shapes:
    slices = ", ".join(slice_name for slice_name, _ in list_sizes(generation))
    raise InputError(f"plan.topology={name!r} is no slice; there are {slices}.")
  return shapes[chips]


def _describe_tpu(name: str, generation: str, shape: str) -> Topology:
  tpu = TPUS[generation]
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
  options = tpu.options | (
    {} if max(sides) > 1 else {"chips_per_host_bounds": [1, 1, 1]}
  )
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
  assert devices[0].device_kind == tpu.kind, devices[0].device_kind
  memory = tpu.memory * 2**30
  return Topology(name, tpu.kind, "tpu", memory, PEAKS[tpu.kind], devices, True)


def _has_gpu_compiler() -> bool:
  """Say whether jax's CUDA plug-in is installed."""
  if importlib.util.find_spec("jax_plugins") is None:
    return False
  names = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
  return any(importlib.util.find_spec(name) for name in names)


def _describe_gpus(generation: str, count: int) -> tuple[Any, ...]:
  import jax
  from jax.experimental import topologies

  jax.devices("cpu")  # finds the plug-ins
  hosts, rest = divmod(count, GPUS_A_HOST)
  shape = f"1x1x{count}" if rest else f"1x{hosts}x{GPUS_A_HOST}"
  try:
    description = topologies.get_topology_desc(
      platform="cuda",
      topology=shape,
      target_config=format_target(GPUS[generation]),
    )
  except NotImplementedError as error:
    raise InputError(
      f"plan.topology={generation}-{count}: jax's CUDA plug-in looked for a GPU of this"
      " machine and found none. Set JAX_PLATFORMS=cpu, with which it does not look."
    ) from error
  return tuple(description.devices)


def _fake_devices(count: int) -> tuple[Any, ...]:
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
