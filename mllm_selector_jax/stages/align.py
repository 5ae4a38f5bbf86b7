"""align: stage 1, trains only the projector, on a pool of captions."""

from mllm_selector_jax.pipeline.fine_tune import tune_share
from mllm_selector_jax.runs.context import Run


def align(run: Run) -> None:
  """Makes `aligned/`, with the base model and its trained projector in `hf/`."""
  tune_share(run, "align", run.workdir.aligned)
