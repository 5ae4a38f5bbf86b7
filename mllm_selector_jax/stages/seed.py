"""seed: fine-tunes the base on a small random share of the pool."""

from mllm_selector_jax.pipeline.fine_tune import tune_share
from mllm_selector_jax.runs.context import Run


def seed(run: Run) -> None:
  """Makes `seed/`: the rows, the metrics, and the seed model in `hf/`."""
  tune_share(run, "seed", run.workdir.seed)
