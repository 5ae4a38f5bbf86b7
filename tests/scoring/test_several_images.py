"""Rows of two images with text between them: what they share, in every pass."""

import itertools

import numpy as np
import pytest

from benchmarks.pool_columns import describe_samples
from mllm_selector_jax.scoring import passes
from mllm_selector_jax.types import ImageLayout, PlacedImage
from tests.models import packed
from tests.scoring import pools
from tests.scoring.test_engine import mesh

CONFIG = pools.CONFIG
LAYOUT = ImageLayout(
  1, np.full(CONFIG.patches, pools.IMAGE, np.int32), np.arange(CONFIG.patches)
)


class PairPool(pools.Pool):
  """Rows of two images each; two rows begin alike up to their last question."""

  def __init__(self):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 1, 8, 8, 3), np.uint8)
    between = rng.integers(9, 40, (2, 3))
    self.samples, names = [], []
    for first, text, second in itertools.product((0, 1), (0, 1), (1, 2)):
      for _ in range(2):
        question = rng.integers(9, 40, rng.integers(1, 5))
        parts = [
          (pools.SYSTEM, "frame"),
          (LAYOUT.tokens, "frame"),
          (between[text], "asked"),
          (LAYOUT.tokens, "frame"),
          (question, "asked"),
          (np.array([6]), "frame"),
          (rng.integers(9, 40, rng.integers(1, 4)), 0),
        ]
        start = len(pools.SYSTEM)
        starts = start, start + CONFIG.patches + len(between[text])
        images = tuple(PlacedImage(place, LAYOUT) for place in starts)
        sample = pools.join(parts)._replace(images=images)
        self.samples.append((sample, (pictures[first], pictures[second])))
        names.append([str(first), str(second)])
    self.table = describe_samples([sample for sample, _ in self.samples], names)


@pytest.mark.parametrize("name", ["main", "no_image", "no_question"])
def test_what_is_shared_changes_no_loss(tmp_path, name):
  params, pool = packed.random_params(CONFIG), PairPool()
  pass_spec = passes.MAIN if name == "main" else passes.CONTROLS[name]
  arguments = {"own": pass_spec, "row_length": 64}
  shared, found, _ = pools.score(pool, params, tmp_path / "shared", mesh(), **arguments)
  alone, wanted, _ = pools.score(
    pool, params, tmp_path / "alone", mesh(), share=False, **arguments
  )
  np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
  assert np.ptp(found["loss"]) > 0.1
  assert shared["packed_rows"] < alone["packed_rows"]
  if name != "no_image":
    assert shared["tiles"] < alone["tiles"] == 2 * len(pool.samples)


def test_beginnings_tell_the_tokens_of_questions():
  pool = PairPool()
  prefixes = pool.table.prefixes
  assert prefixes.asked.reshape(-1, 3).tolist() == [[0, 0, 3]] * len(pool.samples)
  short = prefixes.drop_questions()
  assert (prefixes.tokens - short.tokens == prefixes.asked).all()
  assert not short.asked.any() and (short.keys == prefixes.keys).all()
