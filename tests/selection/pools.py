"""Scores and groups of drawn pools, for tests of strategies."""

import dataclasses

import numpy as np

from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.groups import Groups


def make_pool(rows=600, seed=0, count=7, **fields):
  """Scores and groups of a long-tailed pool with a few seen rows."""
  rng = np.random.default_rng(seed)
  weights = 0.6 ** np.arange(count)
  groups = rng.choice(count, rows, p=weights / weights.sum()).astype(np.int32)
  loss = rng.exponential(size=rows) + 0.2 * groups
  scores = Scores(
    necessity=loss,
    key=rng.integers(0, 2**64, rows, dtype=np.uint64),
    signals={
      "loss": loss,
      "accuracy": rng.choice([0.5, 1.0], rows, p=[0.3, 0.7]),
      "visual": rng.normal(0.5, 0.3, rows),
      "ifd": rng.gamma(9, 0.08, rows),
      **{name: rng.exponential(size=rows) for name in ("perplexity", "el2n", "grand")},
    },
    embeddings=(np.eye(8)[groups % 8] + rng.normal(0, 0.3, (rows, 8)).round(3)).astype(
      np.float32
    ),
    seen=rng.random(rows) < 0.05,
    tokens=rng.integers(5, 60, rows),
    reference=rng.random(rows) < 0.4,
  )
  names = tuple(f"group {c}" for c in range(count))
  return dataclasses.replace(scores, **fields), Groups(groups, names)


def permute(scores, groups, order):
  moved = {
    field.name: value
    if (value := getattr(scores, field.name)) is None
    else value[order]
    for field in dataclasses.fields(scores)
    if field.name != "signals"
  }
  moved["signals"] = {name: x[order] for name, x in scores.signals.items()}
  return Scores(**moved), Groups(groups.index[order], groups.names)
