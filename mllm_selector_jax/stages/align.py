"""align: stage 1, teaches the projector alone on a pool of captions."""

from mllm_selector_jax.pipeline.fine_tune import tune_share
from mllm_selector_jax.runs.context import Run


def align(run: Run) -> None:
  """Makes `aligned/`: the base with its projector trained on the pool, in `hf/`."""
  tune_share(run, "align", run.workdir.aligned)
