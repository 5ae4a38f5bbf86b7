"""How the tests, and the processes that they start, compile their programs.

Most programs of the tests run once, on a few numbers. With these flags the compiler
takes a seventh of its usual time for the gradient of a small model, and what it makes
computes the same function.
"""

import importlib.metadata

# From 0.11 on there is only one way to compile fusions; an unknown flag ends a process.
_CHOOSES_FUSIONS = importlib.metadata.version("jaxlib").split(".")[:2] == ["0", "10"]
QUICK = " ".join(
  (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    *["--xla_cpu_use_fusion_emitters=false"] * _CHOOSES_FUSIONS,
  )
)
# For jax.jit's compiler_options, where a tolerance is of rounding as users have it.
AS_USERS: dict[str, int | bool] = {
  "xla_backend_optimization_level": 3,
  **({"xla_cpu_use_fusion_emitters": True} if _CHOOSES_FUSIONS else {}),
}
EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
