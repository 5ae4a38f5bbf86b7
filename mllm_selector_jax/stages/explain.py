"""explain: says why rows were kept or not, and what would have changed it."""

from mllm_selector_jax.pipeline.explain_rows import explain_rows
from mllm_selector_jax.runs.context import Run


def explain(run: Run) -> None:
  """Says why the rows that --id names were kept or not in the arm of --arm."""
  for text in explain_rows(run, run.ids, run.arm or "main"):
    run.say(text)
