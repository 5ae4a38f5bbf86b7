"""A pool of a few figures has these figures."""

import json

import numpy as np
import pytest

from mllm_selector_jax.data.packing.tree_packing import make_plan
from mllm_selector_jax.planning import described_pool
from mllm_selector_jax.types import ImageLayout, InputError

LAYOUT = ImageLayout(2, np.zeros(100, np.int32), np.arange(100))


def describe(rows=4000, tokens=300.0, images=1.0, longest=2048):
  return described_pool.describe_rows(rows, tokens, images, LAYOUT, longest)


@pytest.mark.parametrize("images", [0.0, 0.25, 1.0, 1.5])
def test_means_are_those_that_are_given(images):
  pool = describe(images=images)
  assert len(pool) == 4000 and pool.ok.all()
  np.testing.assert_allclose(pool.tokens.mean(), 300, atol=1)
  assert pool.images.counts.sum() == 4000 * images
  np.testing.assert_array_equal(pool.image_tokens, 100 * pool.images.counts)
  np.testing.assert_array_equal(pool.tiles, 2 * pool.images.counts)
  assert pool.tokens.max() <= 2048 and (pool.tokens - pool.image_tokens >= 4).all()
  assert pool.tokens.std() > 50  # rows differ, as packing has to bear
  assert (pool.has_image == (pool.images.counts > 0)).all()


def test_rows_are_cut_and_the_mean_stays():
  pool = describe(tokens=600.0, longest=800)
  assert pool.tokens.max() == 800
  np.testing.assert_allclose(pool.tokens.mean(), 600, atol=1)


def test_no_two_described_rows_share_an_image():
  pool = describe(64)
  plan = make_plan(pool.tokens, 2048, pool.prefixes, pool.tiles, pool.supervised)
  assert plan.tokens(pool.tokens).sum() == pool.tokens.sum()


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"tokens": 90.0}, "images alone have 100 tokens"),
    ({"tokens": 3000.0}, "model.max_length is 2,048"),
    ({"tokens": None, "images": 30.0}, "fewer plan.images"),
  ],
)
def test_figures_that_cannot_be_are_refused(change, words):
  with pytest.raises(InputError, match=words):
    describe(**change)


def summarise(**changes):
  """What a check tells of 1,000 rows, four of which share an image."""
  tokens = {"5": 120, "25": 200, "50": 260, "75": 330, "95": 500, "99": 700}
  text = {"5": 1, "25": 2, "50": 5, "75": 9, "95": 60, "99": 80}
  return {
    "ok": 1000,
    "tokens": {"least": 110, "mean": 280.0, "most": 900, "percentiles": tokens},
    "supervised": {"least": 1, "mean": 12.0, "most": 90, "percentiles": text},
    "turns": {"least": 1, "mean": 1.0, "most": 1, "percentiles": {"50": 1}},
    "images": {
      "a_row": {"0": 200, "1": 800},
      "uses": 800,
      "distinct": 200,
      "tokens": 80_000,
      "tiles": 1600,
      "bytes": 30_000_000,
    },
    **changes,
  }


def test_a_summary_gives_its_rows_and_what_they_share():
  pool = described_pool.describe_summary(summarise(), LAYOUT, "a.json")
  np.testing.assert_allclose(pool.tokens.mean(), 280, rtol=0.01)
  np.testing.assert_allclose(np.median(pool.tokens), 260, rtol=0.05)
  assert pool.images.counts.sum() == 800 and pool.tiles.sum() == 1600
  assert pool.image_tokens.sum() == 80_000 and (pool.supervised < pool.tokens).all()
  prefixes = pool.prefixes.take(np.arange(1000), 1)
  plan = make_plan(pool.tokens, 2048, prefixes, pool.tiles, pool.supervised)
  spared = pool.tokens.sum() - plan.tokens(pool.tokens).sum()
  # Three of four rows spare the image's tokens and what precedes them, except where
  # the rows of an image do not fit into one packed row.
  np.testing.assert_allclose(spared, 600 * (100 + described_pool.LEAD), rtol=0.02)


@pytest.mark.parametrize(
  "wrong",
  [
    [],
    {},
    summarise(tokens=5),
    summarise(ok="many"),
    summarise(images={"a_row": {"0": 3}, "uses": 0, "distinct": 0}),
  ],
)
def test_what_is_no_summary_is_refused(wrong):
  with pytest.raises(InputError, match=r"a\.json is no summary of a checked pool"):
    described_pool.describe_summary(json.loads(json.dumps(wrong)), LAYOUT, "a.json")


def test_a_summary_without_rows_is_refused():
  nothing = summarise(ok=0)
  nothing["images"] = {**nothing["images"], "a_row": {}}
  with pytest.raises(InputError, match="without a usable row"):
    described_pool.describe_summary(nothing, LAYOUT, "a.json")
