"""Devices that are described but not there: programs can be compiled for them.

TPUs come from jax.experimental.topologies, whose compiler is in the package libtpu;
no TPU is needed. For GPUs jax's compiler needs the GPU itself, so that as many fake
CPU devices stand for them, and what comes out is an estimate.
"""

import dataclasses
import importlib.util
import os
import re
from typing import Any

from mllm_selector_jax.training.peaks import PEAKS
from mllm_selector_jax.types import InputError

# By the name of the generation: jax's name of the device, GiB of memory that a program
# gets (Google's pages say 16, 95 and 32 for v5e, v5p and v6e; what the compiler of
# v5e and v6e has is a little less), and TensorCores a chip where the size in a slice's
# name counts those.
TPUS = {
  "v5e": ("TPU v5 lite", 15.75, 1),
  "v5litepod": ("TPU v5 lite", 15.75, 1),
  "v5p": ("TPU v5", 95, 2),
  "v6e": ("TPU v6 lite", 31.25, 1),
}
# NVIDIA's data sheets, where a GB is 10^9 bytes.
GPUS = {
  "h100": ("NVIDIA H100 80GB HBM3", 80e9),
  "h200": ("NVIDIA H200", 141e9),
}
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
    name: as given.
    kind: jax's name of the device.
    platform: "tpu" or "gpu".
    memory: of one device, bytes.
    peak: of one device, bfloat16 FLOP/s.
    devices: what a mesh is made of.
    exact: whether the devices' own compiler is used.
  """

  name: str
  kind: str
  platform: str
  memory: float
  peak: float
  devices: tuple[Any, ...]
  exact: bool


def describe(name: str) -> Topology:
  """The devices of a name such as "v5p-8", "v5e-16", "v6e:4x8" or "h200-8".

  v5p-8 has 8 TensorCores, which are 4 chips and 4 devices, as Google counts; of v5e
  and v6e the number is of chips. After a colon stands the shape of the slice in chips.

  Raises:
    InputError: there is no such name, or the compiler is not installed.
  """
  generation, size = parse(name)
  if generation in TPUS:
    return _describe_tpu(name, generation, size)
  kind, memory = GPUS[generation]
  devices = _fake_devices(int(size))
  return Topology(name, kind, "gpu", memory, PEAKS[kind], devices, False)


def parse(name: str) -> tuple[str, str]:
  """The generation, and a TPU slice's shape in chips or the number of GPUs.

  Raises:
    InputError: there is no such name.
  """
  found = re.fullmatch(r"([a-z0-9]+?)(?:-(\d+)|:(\d+(?:x\d+){1,2}))", name)
  generation = found[1] if found else ""
  if generation in TPUS:
    return generation, found[3] or find_shape(name, generation, int(found[2]))
  if generation in GPUS and found[2]:
    if int(found[2]) < 1:
      raise InputError(f"plan.topology={name!r}: 0 GPUs; give 1 or more.")
    return generation, found[2]
  raise InputError(
    f"plan.topology={name!r} is not known. Give a TPU slice, such as v5p-8, v5e-16 or"
    " v6e:4x8, or GPUs, such as h100-8 or h200-1."
  )


def find_shape(name: str, generation: str, count: int) -> str:
  """The shape in chips of a slice of that many chips, or of TensorCores."""
  cores = TPUS[generation][2]
  shapes = CUBES if generation == "v5p" else FLAT
  chips, rest = divmod(count, cores)
  if rest or chips not in shapes:
    known = ", ".join(f"{generation}-{cores * n}" for n in shapes)
    raise InputError(f"plan.topology={name!r} is no slice; there are {known}.")
  return shapes[chips]


def _describe_tpu(name: str, generation: str, shape: str) -> Topology:
  kind, memory, _ = TPUS[generation]
  if importlib.util.find_spec("libtpu") is None:
    raise InputError(
      f"plan.topology={name!r} needs the TPU compiler: pip install"
      " 'mllm_selector_jax[tpu]'. No TPU is needed."
    )
  # Neither does the compiler look for a TPU's host then, nor lock it.
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
  more = {} if max(sides) > 1 else {"chips_per_host_bounds": [1, 1, 1]}
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=f"{family}:{shape}", **more
    )
  except Exception as error:  # the plug-in raises what it likes
    raise InputError(
      f"plan.topology={name!r}: the compiler knows no slice of {shape} chips"
      f" ({str(error).partition(chr(10))[0]})."
    ) from error
  devices = tuple(found.devices)
  assert devices[0].device_kind == kind, devices[0].device_kind
  return Topology(name, kind, "tpu", memory * 2**30, PEAKS[kind], devices, True)


def _fake_devices(count: int) -> tuple[Any, ...]:
  import jax

  try:
    jax.config.update("jax_num_cpu_devices", count)
  except RuntimeError:  # jax has its devices already
    pass
  devices = jax.devices("cpu")
  if len(devices) < count:
    raise InputError(
      f"plan.topology: {count} GPUs are stood for by as many CPU devices, and this"
      f" process has {len(devices)}. Set"
      f" XLA_FLAGS=--xla_force_host_platform_device_count={count}."
    )
  return tuple(devices[:count])
