"""score: every usable row's signals and embedding, by as few passes as they need."""

from mllm_selector_jax.pipeline.score_pool import make_scores
from mllm_selector_jax.runs.context import Run


def score(run: Run) -> None:
  """Makes `scores/` with the seed model, or with `score.model` where given."""
  make_scores(run)
