"""Eight fake CPU devices, strict jax, and shapes checked against annotations."""

import os

os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
# Two programs in flight can starve each other of the threads that their
# collectives wait for.
jax.config.update("jax_cpu_enable_async_dispatch", False)
