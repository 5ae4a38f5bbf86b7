"""The kinds of devices that `plan` knows: memory, speed, and what compilers ask for.

Peaks in bfloat16 FLOP/s are in training/peaks.py, by jax's name of the device.
"""

from typing import NamedTuple

GPUS_A_HOST = 8
# Of a GPU's memory, what jax's allocator gets where XLA_PYTHON_CLIENT_MEM_FRACTION says
# so, as launch/ does; the driver and the CUDA libraries take some of the rest.
GPU_SHARE = 0.9


class Tpu(NamedTuple):
  """A generation of TPUs, one device a chip.

  Attributes:
    kind: jax's name of the device.
    memory: GiB that a program may use, as the compiler has it. Google's pages
      cloud.google.com/tpu/docs/v4, v5e, v5p and v6e publish 32, 16, 95 and 32.
    units: units per chip that the number in a slice's name counts: 2 if it counts
      TensorCores, 1 if it counts chips.
    cubic: whether a slice has three dimensions.
    options: what the compiler is told beside the slice's shape.
  """

  kind: str
  memory: float
  units: int
  cubic: bool
  options: dict[str, str]


class Gpu(NamedTuple):
  """A kind of GPUs, from NVIDIA's data sheets and white papers.

  Attributes:
    kind: jax's name of the device.
    memory: bytes, of which a data sheet's GB has 10^9.
    bandwidth: bytes that the device reads from its memory in a second.
    major, minor: the compute capability.
    cores: streaming multiprocessors, for the compiler's choices alone.
    lanes: float32 units of a multiprocessor.
    threads: the most of a multiprocessor.
    shared: bytes of shared memory that a block may ask for.
    cache: bytes of the L2 cache.
    clock: GHz, at the highest.
  """

  kind: str
  memory: float
  bandwidth: float
  major: int
  minor: int
  cores: int
  lanes: int
  threads: int
  shared: int
  cache: int
  clock: float


_MEGACORE = {"chip_config_name": "megacore"}  # a chip's two cores are one device
TPUS = {
  "v4": Tpu("TPU v4", 30.75, 2, True, _MEGACORE),
  "v5e": Tpu("TPU v5 lite", 15.75, 1, False, {}),
  "v5litepod": Tpu("TPU v5 lite", 15.75, 1, False, {}),
  "v5p": Tpu("TPU v5", 95, 2, True, {}),
  "v6e": Tpu("TPU v6 lite", 31.25, 1, False, {}),
}
_AMPERE = (8, 0, 108, 64, 2048, 166_912, 40 << 20, 1.41)
_HOPPER = (9, 0, 132, 128, 2048, 232_448, 50 << 20, 1.98)
# Data sheets: A100 (2021), L40S (2023), H100 (2023), H200 (2024), HGX B200 (2024, 1.4
# TB for eight); for the RTX 4090 the white paper of the Ada architecture (2022).
GPUS = {
  "rtx4090": Gpu(
    "NVIDIA GeForce RTX 4090",
    *(24e9, 1.008e12, 8, 9, 128, 128, 1536, 101_376, 72 << 20, 2.52),
  ),
  "l40s": Gpu(
    "NVIDIA L40S", 48e9, 0.864e12, 8, 9, 142, 128, 1536, 101_376, 96 << 20, 2.52
  ),
  "a100-40gb": Gpu("NVIDIA A100-SXM4-40GB", 40e9, 1.555e12, *_AMPERE),
  "a100-80gb": Gpu("NVIDIA A100-SXM4-80GB", 80e9, 2.039e12, *_AMPERE),
  "h100": Gpu("NVIDIA H100 80GB HBM3", 80e9, 3.35e12, *_HOPPER),
  "h200": Gpu("NVIDIA H200", 141e9, 4.8e12, *_HOPPER),
  "b200": Gpu(
    "NVIDIA B200", 180e9, 8e12, 10, 0, 148, 128, 2048, 232_448, 126 << 20, 1.97
  ),
}
# What the compiler asks of a GPU, in the form of its text
# (stream_executor.GpuTargetConfigProto).
_TARGET = """
gpu_device_info {{
  cuda_compute_capability {{ major: {gpu.major} minor: {gpu.minor} }}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.lanes}
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: {gpu.threads}
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {gpu.shared}
  shared_memory_per_core: {shared_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  clock_rate_ghz: {gpu.clock}
  l2_cache_size: {gpu.cache}
  memory_bandwidth: {gpu.bandwidth:.0f}
  device_memory_size: {gpu.memory:.0f}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{gpu.kind}"
"""

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
# Of GPUs: those of a host, then whole hosts.
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)


def format_target(gpu: Gpu) -> str:
  """Write what the GPU compiler asks of a GPU."""
  # Of each multiprocessor's shared memory, a block cannot have the last KiB.
  return _TARGET.format(gpu=gpu, shared_core=gpu.shared + 1024)


def list_sizes(generation: str) -> list[tuple[str, int]]:
  """List the names of slices, or of sets of GPUs, with their devices, ascending."""
  if generation in GPUS:
    return [(f"{generation}-{count}", count) for count in COUNTS]
  tpu = TPUS[generation]
  shapes = CUBES if tpu.cubic else FLAT
  return [(f"{generation}-{chips * tpu.units}", chips) for chips in shapes]
