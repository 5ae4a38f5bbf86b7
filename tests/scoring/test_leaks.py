"""A loss that is not finite stays with its own sample, whatever it is packed with."""

import numpy as np
import pytest

from mllm_selector_jax.data.packing.assembly import Counts, Shape
from mllm_selector_jax.scoring import engine, nonfinite, passes
from mllm_selector_jax.types import Stopped, Tiling
from tests.models import packed
from tests.scoring import pools
from tests.scoring.test_engine import SUMS, mesh, read_bytes

WORD = 39  # of which a model's embedding overflows


def make_case(bad):
  """A pool in which WORD stands in these rows alone, and the pool without it."""
  clean, pool = pools.make_pool(), pools.make_pool()
  for each, put in ((clean, ()), (pool, bad)):
    for row, (sample, tiles) in enumerate(each.samples):
      tokens = np.where(sample.tokens == WORD, 38, sample.tokens)
      if row in put:
        tokens[np.flatnonzero(sample.asked)[-1]] = WORD
      each.samples[row] = sample._replace(tokens=tokens), tiles
  return clean, pool


@pytest.fixture(scope="module")
def params():
  params = packed.random_params(pools.CONFIG)
  table = np.array(params["decoder"]["token_embedding"])
  table[WORD] = np.inf
  params["decoder"]["token_embedding"] = table
  return params


@pytest.mark.parametrize("devices, bad", [(1, (2, 3, 12)), (2, (7,)), (1, range(23))])
def test_neighbours_keep_their_scores(params, tmp_path, devices, bad):
  clean, pool = make_case(set(bad))
  axes = {"data": devices}
  _, wanted, embeddings = pools.score(
    clean, params, tmp_path / "clean", mesh(devices, **axes)
  )
  _, found, others = pools.score(
    pool, params, tmp_path / "bad", mesh(devices, **axes), part_rows=12
  )
  np.testing.assert_array_equal(found["row"], np.arange(23))
  rest = ~np.isin(np.arange(23), list(bad))
  np.testing.assert_array_equal(np.isfinite(found["loss"]), rest)
  for name in SUMS:
    np.testing.assert_allclose(found[name][rest], wanted[name][rest], rtol=1e-5)
  np.testing.assert_allclose(others[rest], embeddings[rest], atol=1e-5)
  np.testing.assert_array_equal(found["supervised"], wanted["supervised"])
  assert list(map(len, found["turn_losses"])) == pool.table.turns.tolist()


def test_a_packed_neighbour_would_not_be_finite_without_it(
  params, tmp_path, monkeypatch
):
  _, pool = make_case({2})
  monkeypatch.setattr(nonfinite, "find_not_finite", lambda outputs: np.zeros(0, int))
  _, found, _ = pools.score(pool, params, tmp_path, mesh())
  assert (~np.isfinite(found["loss"])).sum() > 1


def test_control_passes_are_kept_apart_too(params, tmp_path):
  clean, pool = make_case({2})
  own = passes.CONTROLS["no_image"]
  _, wanted, _ = pools.score(clean, params, tmp_path / "clean", mesh(), own)
  _, found, _ = pools.score(pool, params, tmp_path / "bad", mesh(), own)
  rest = np.arange(23) != 2
  assert not np.isfinite(found["loss"][2])
  np.testing.assert_allclose(found["loss"][rest], wanted["loss"][rest], rtol=1e-5)


def test_it_goes_on_to_the_same_bytes(params, tmp_path):
  _, pool = make_case({2, 9})
  pools.score(pool, params, tmp_path / "whole", mesh())
  folder = tmp_path / "broken"
  folder.mkdir()
  options = engine.ScoreOptions(48, 4, 8, 0)
  for stopped in (lambda: True, lambda: False):
    try:
      engine.run_pass(
        pools.CONFIG, params, pool, np.arange(23), options, mesh(), folder,
        stopped=stopped,
      )  # fmt: skip
    except Stopped:
      assert len(list(folder.glob("*.parquet"))) == 1
  assert read_bytes(folder) == read_bytes(tmp_path / "whole")


def test_every_step_fits_the_shape():
  rng = np.random.default_rng(0)
  counts = Counts(
    tiles=rng.integers(0, 2, 50),
    taps=np.zeros(50, int),
    supervised=rng.integers(1, 20, 50),
    answers=rng.integers(1, 4, 50),
  )
  shape = Shape(8, 64, 2, tiles=2, supervised=24, answers=5, tiling=Tiling(4, 8))
  rows = np.flatnonzero(rng.random(50) < 0.7)
  steps = nonfinite.set_apart(rows, counts, shape)
  assert all(len(step) == shape.rows for step in steps)
  laid = [items for step in steps for trees in step for _, items in trees]
  assert laid == [[row] for row in rows]
  for step in steps:
    for shard in (step[:4], step[4:]):
      own = [items[0] for trees in shard for _, items in trees]
      sums = [count[own].sum() for count in counts]
      assert sums[0] <= 2 and sums[2] <= 24 and sums[3] <= 5
  assert len(steps) < len(rows)  # some are beside each other, in rows of their own
  assert nonfinite.set_apart([], counts, shape) == []


def test_other_options_do_not_mix_parts(tmp_path):
  """A smaller batch after a fault cuts the parts elsewhere: none is taken over."""
  params, pool = packed.random_params(pools.CONFIG), pools.make_pool()
  _, wanted, _ = pools.score(pool, params, tmp_path / "whole", mesh())
  folder = tmp_path / "broken"
  folder.mkdir()
  with pytest.raises(Stopped):
    engine.run_pass(
      pools.CONFIG, params, pool, np.arange(23), engine.ScoreOptions(48, 4, 12, 0),
      mesh(), folder, stopped=lambda: True,
    )  # fmt: skip
  _, found, _ = pools.score(pool, params, folder, mesh(), batch_rows=1)
  np.testing.assert_array_equal(found["row"], np.arange(23))
  np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)
