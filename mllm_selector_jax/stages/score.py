"""score: computes the signals and the embedding of every usable row."""

from mllm_selector_jax.pipeline.score_pool import make_scores
from mllm_selector_jax.runs.context import Run


def score(run: Run) -> None:
  """Makes `scores/` with the seed model, or with `score.model` if it is given."""
  make_scores(run)
