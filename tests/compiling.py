"""How the tests, and the processes that they start, compile their programs.

Most programs of the tests run once, on a few numbers. With these flags the compiler
takes a seventh of its usual time for the gradient of a small model, and what it makes
computes the same function.
"""

QUICK = " ".join(
  (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false",
  )
)
# For jax.jit's compiler_options, where a tolerance is of rounding as users have it.
AS_USERS = {
  "xla_backend_optimization_level": 3,
  "xla_cpu_use_fusion_emitters": True,
}
EIGHT_DEVICES = "--xla_force_host_platform_device_count=8"
