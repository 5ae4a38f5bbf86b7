"""Scores and groups of drawn pools, for tests of strategies."""

import dataclasses

import numpy as np

from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.limits import Column, make_column


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
    if field.name not in ("signals", "columns", "overseer")
  }
  moved["signals"] = {name: x[order] for name, x in scores.signals.items()}
  moved["columns"] = {
    name: permute_column(column, order) for name, column in scores.columns.items()
  }
  return Scores(**moved), Groups(groups.index[order], groups.names)


def permute_column(column, order):
  parts = np.split(column.index, column.bounds[1:-1])
  index = np.concatenate([parts[row] for row in order])
  bounds = np.concatenate([[0], np.cumsum(np.diff(column.bounds)[order])])
  return Column(bounds, index, column.names)


def make_columns(rows, seed=0, images=None, topics=5):
  """Up to two images of each row, some of which have none, and a topic."""
  rng = np.random.default_rng(seed)
  counts = rng.choice(3, rows, p=[0.1, 0.7, 0.2])
  names = rng.integers(0, images or max(1, rows // 4), counts.sum())
  owners = np.repeat(np.arange(rows), counts)
  names = np.array([f"image {name}" for name in names], object)
  shares = 0.5 ** np.arange(topics)
  topic = rng.choice(topics, rows, p=shares / shares.sum())
  return {
    "image": make_column(names, owners, rows),
    "topic": make_column(np.array([f"topic {t}" for t in topic])),
  }
