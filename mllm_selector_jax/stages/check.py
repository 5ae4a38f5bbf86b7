"""check: reads the pool, and says what it holds and which rows cannot be used."""

from mllm_selector_jax.pipeline.check_pool import make_pool
from mllm_selector_jax.runs.context import Run


def check(run: Run) -> None:
  """Makes `pool.parquet` and `pool_summary.json`, and says what they hold."""
  make_pool(run, look=True)
