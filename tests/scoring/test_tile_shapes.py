"""Steps of several shapes give the scores of one shape for all."""

import numpy as np
import pytest

from benchmarks.pool_columns import describe_samples, place_image
from mllm_selector_jax.data.packing import batch_shapes
from mllm_selector_jax.scoring import engine
from mllm_selector_jax.types import Stopped
from tests.models import packed
from tests.scoring import pools
from tests.scoring.test_engine import SUMS, mesh, read_bytes

ROWS, WORD = 40, 39


def make_pool():
  """Rows of text, of an image of one tile, and of an image of three."""
  pool = pools.make_pool(ROWS)
  rng = np.random.default_rng(1)
  patches, tiles = pools.CONFIG.patches, rng.integers(0, 256, (5, 3, 8, 8, 3), np.uint8)
  for row in range(2, ROWS, 5):
    sample, _ = pool.samples[row]
    start = sample.images[0].start
    longer = {
      name: np.insert(getattr(sample, name), [start] * (2 * patches), value)
      for name, value in (
        ("tokens", pools.IMAGE), ("supervised", False), ("turns", -1), ("asked", False)
      )
    }  # fmt: skip
    sample = sample._replace(**longer)
    sample = place_image(sample, pools.IMAGE, 3 * patches, 3)
    pool.samples[row] = sample, (tiles[row % 3],)
  names = [
    [f"{cut[0].shape[0]} {cut[0].sum()}"] if cut else [] for _, cut in pool.samples
  ]
  pool.table = describe_samples([sample for sample, _ in pool.samples], names)
  return pool


@pytest.fixture(scope="module")
def params():
  return packed.random_params(pools.CONFIG)


@pytest.fixture(scope="module")
def wanted(params, tmp_path_factory):
  return pools.score(make_pool(), params, tmp_path_factory.mktemp("one"), mesh())


@pytest.fixture
def few_steps(monkeypatch):
  """Few steps are enough for several shapes."""
  monkeypatch.setattr(batch_shapes, "STEPS_EACH", 1)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("share", [True, False])
def test_shapes_do_not_change_scores(
  params, wanted, few_steps, tmp_path, devices, share
):
  pool, axes = make_pool(), mesh(devices, data=devices)
  options = engine.ScoreOptions(48, 4, 8, 0, share)
  layout = engine.lay_out(pools.CONFIG, pool.table, np.arange(ROWS), options, axes)
  assert len({shape.tiles for shape in layout.shapes.shapes}) > 1
  counts, found, embeddings = pools.score(pool, params, tmp_path, axes, share=share)
  for name in SUMS:
    np.testing.assert_allclose(found[name], wanted[1][name], rtol=1e-5)
  np.testing.assert_allclose(embeddings, wanted[2], atol=1e-5)
  if share and devices == 1:
    assert counts["executed_tiles"] < wanted[0]["executed_tiles"]


def test_a_stopped_pass_goes_on_to_the_same_bytes(params, few_steps, tmp_path):
  pool, whole, broken = make_pool(), tmp_path / "whole", tmp_path / "broken"
  pools.score(pool, params, whole, mesh())
  broken.mkdir()
  options = engine.ScoreOptions(48, 4, 8, 0)
  for stopped in (lambda: True, lambda: False):
    try:
      engine.run_pass(
        pools.CONFIG, params, pool, np.arange(ROWS), options, mesh(), broken,
        stopped=stopped,
      )  # fmt: skip
    except Stopped:
      assert len(list(broken.glob("*.parquet"))) == 1
  assert read_bytes(broken) == read_bytes(whole)


def test_samples_that_are_not_finite_are_set_apart(params, few_steps, tmp_path):
  pool = make_pool()
  bad = np.zeros(ROWS, bool)
  for row, (sample, tiles) in enumerate(pool.samples):
    tokens = np.where(sample.tokens == WORD, 38, sample.tokens)
    if row % 5 in (0, 2):  # with no tile and with three
      bad[row] = row < 10
    if bad[row]:
      tokens[np.flatnonzero(sample.asked)[-1]] = WORD
    pool.samples[row] = sample._replace(tokens=tokens), tiles
  table = np.array(params["decoder"]["token_embedding"])
  table[WORD] = np.inf
  decoder = {**params["decoder"], "token_embedding": table}
  _, found, _ = pools.score(pool, {**params, "decoder": decoder}, tmp_path, mesh())
  np.testing.assert_array_equal(np.isfinite(found["loss"]), ~bad)
