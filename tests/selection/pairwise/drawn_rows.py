"""Drawn embeddings for tests of kernels, and their cosines in float64."""

import jax
import numpy as np

from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows

COUNTS = (1, 2, 8)  # of devices


def draw_rows(count=300, width=6, seed=0, clusters=5):
  """Rows [count, width] around a few directions; some are equal."""
  rng = np.random.default_rng(seed)
  centres = rng.normal(size=(clusters, width))
  rows = centres[rng.integers(0, clusters, count)] + rng.normal(0, 0.4, (count, width))
  rows[1::29] = rows[0::29][: len(rows[1::29])]
  return rows.astype(np.float32)


def unit(rows):
  exact = rows.astype(np.float64)
  return exact / np.linalg.norm(exact, axis=1, keepdims=True)


def cosines(rows):
  """All cosines, rounded like those of the kernels."""
  return np.rint(unit(rows) @ unit(rows).T * 2.0**20) / 2.0**20


def on_devices(function, rows):
  """Results of `function(vectors, devices)` on one, two and eight devices."""
  vectors = UnitRows(rows)
  return [function(vectors, jax.devices()[:count]) for count in COUNTS]
