"""Rows that cover their group: against a plain greedy in float64, on any devices."""

import dataclasses

import jax
import numpy as np
import pytest

from mllm_selector_jax.selection import covering
from mllm_selector_jax.selection.covering import WEIGHT, cover_groups
from mllm_selector_jax.selection.eligibility import sort_out
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.strategies import select
from mllm_selector_jax.types import InputError
from tests.selection.pools import make_columns, make_pool, permute

COVER = SelectOptions(within="cover", bound="none")


def cover_plainly(x, necessity, forced, allowed=None, nearest=None):
  """Facility location of one group in float64; rows are in drawn order."""
  cosine = np.maximum(x @ x.T, 0)
  if nearest:
    order = np.argsort(-(x @ x.T) - 2 * np.eye(len(x)), axis=1, kind="stable")
    near = np.zeros_like(cosine, bool)
    np.put_along_axis(near, order[:, :nearest], True, 1)
    cosine = np.where(near.T, cosine, 0)
  weight = np.maximum(np.rint(necessity / WEIGHT), 1) * WEIGHT
  best, picks = np.zeros(len(x)), []
  open_rows = [n for n in range(len(x)) if allowed is None or allowed[n]]
  while open_rows:
    gain = (weight * np.maximum(cosine - best, 0)).sum(1)
    pick = max(open_rows, key=lambda n: (gain[n], -n))
    pick = len(picks) if len(picks) < forced else pick
    open_rows.remove(pick)
    picks.append(pick)
    best = np.maximum(best, cosine[pick])
  return picks


def unit(scores, rows):
  x = scores.embeddings[rows].astype(np.float64)
  return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("nearest", [None, 12])
@pytest.mark.parametrize("forced", [0, 5])
def test_groups_are_ordered_as_by_a_plain_greedy(nearest, forced, monkeypatch):
  monkeypatch.setattr(covering, "NEAREST", 12)
  rng = np.random.default_rng(2)
  count, groups = 150, rng.choice([0, 3, 4], 150, p=[0.6, 0.3, 0.1])
  scores, _ = make_pool(count, 1)
  embeddings = rng.normal(size=(count, 6)).astype(np.float32)
  scores = dataclasses.replace(scores, embeddings=embeddings)
  tie, necessity = scores.key, scores.rank()
  first = np.zeros(count, bool)
  first[rng.permutation(count)[:forced]] = True
  allowed, covered = rng.random(count) < 0.8, rng.random(count) < 0.95
  allowed |= first
  covered |= allowed
  limit = 0 if nearest else count
  found = cover_groups(
    UnitRows(embeddings), groups, tie, first, covered, allowed, necessity, limit
  )
  assert np.array_equal(np.isfinite(found), allowed)
  for group in (0, 3, 4):
    rows = np.flatnonzero((groups == group) & covered)
    rows = rows[np.lexsort((tie[rows], ~first[rows]))]
    picks = cover_plainly(
      unit(scores, rows), necessity[rows], first[rows].sum(), allowed[rows], nearest
    )
    mine = np.flatnonzero((groups == group) & allowed)
    assert mine[np.argsort(-found[mine])].tolist() == rows[picks].tolist()


def test_kl_takes_its_quotas_from_the_front_of_the_groups():
  scores, groups = make_pool(300, 4)
  chosen = select(scores, groups, 90, 0, COVER)
  uniform = select(scores, groups, 90, 0, dataclasses.replace(COVER, within="uniform"))
  np.testing.assert_array_equal(chosen.table.kept, uniform.table.kept)
  np.testing.assert_array_equal(chosen.table.quota, uniform.table.quota)
  assert abs(chosen.certificate.gap) < 1e-9
  assert chosen.certificate.value == pytest.approx(uniform.certificate.value)
  drawn = sort_out(scores, groups, 0, COVER, bounded=True)
  for group in range(len(groups.names)):
    rows = np.flatnonzero(groups.index == group)
    rows = rows[np.argsort(drawn.tie[rows])]
    picks = cover_plainly(unit(scores, rows), drawn.normalised_necessity[rows], 0)
    wanted = rows[picks[: chosen.table.kept[group]]]
    kept = np.flatnonzero(chosen.kept & (groups.index == group))
    assert sorted(wanted) == kept.tolist()


def test_necessity_draws_the_cover_to_where_it_is_high():
  # Two lumps of one group; the first rows must be in the one that needs it.
  x = np.repeat(np.eye(2, dtype=np.float32), [30, 10], axis=0)
  x += np.random.default_rng(0).normal(0, 0.01, x.shape).astype(np.float32)
  necessity = np.repeat([0.1, 0.9], [30, 10])
  args = np.zeros(40, int), np.arange(40, dtype=np.uint64)
  masks = np.zeros(40, bool), np.ones(40, bool), np.ones(40, bool)
  found = cover_groups(UnitRows(x), *args, *masks, necessity)
  assert found.argmax() >= 30  # 10 rows of 0.9 need more than 30 of 0.1
  even = cover_groups(UnitRows(x), *args, *masks, np.full(40, 0.5))
  assert even.argmax() < 30


@pytest.mark.parametrize("limits", [{}, {"most": "image=1", "least": "topic=2"}])
def test_budgets_nest_and_the_order_of_rows_is_no_matter(limits):
  scores, groups = make_pool(200)
  scores = dataclasses.replace(scores, columns=make_columns(200))
  options = SelectOptions(within="cover", **limits)
  before = np.zeros(200, bool)
  for budget in (20, 21, 40, 77, 100):
    chosen = select(scores, groups, budget, 3, options)
    assert chosen.kept.sum() == min(budget, chosen.kept.sum()) and not np.any(
      before & ~chosen.kept
    )
    assert abs(chosen.certificate.gap) < 1e-9
    before = chosen.kept
  order = np.random.default_rng(9).permutation(200)
  moved = select(*permute(scores, groups, order), 77, 3, options)
  one = select(scores, groups, 77, 3, options)
  for name in ("kept", "rank", "reason", "gain"):
    np.testing.assert_array_equal(getattr(one, name)[order], getattr(moved, name))


@pytest.mark.parametrize("all_pairs_rows", [0, 8192])
def test_any_number_of_devices_gives_the_same_rows(all_pairs_rows, monkeypatch):
  scores, groups = make_pool(2500, 5, count=2)
  every = jax.local_devices()
  assert len(every) == 8
  tie, necessity = scores.key, scores.rank()
  masks = np.zeros(2500, bool), np.ones(2500, bool), np.ones(2500, bool)
  vectors, found = UnitRows(scores.embeddings), []
  for count in (1, 2, 8):
    monkeypatch.setattr(jax, "local_devices", lambda *_, count=count: every[:count])
    found.append(
      cover_groups(vectors, groups.index, tie, *masks, necessity, all_pairs_rows)
    )
  np.testing.assert_array_equal(found[0], found[1])
  np.testing.assert_array_equal(found[0], found[2])


def test_kept_rows_are_nearer_to_all_than_drawn_ones():
  scores, groups = make_pool(600, 7)
  means = {}
  for within in ("uniform", "cover"):
    options = dataclasses.replace(COVER, within=within)
    kept = select(scores, groups, 60, 0, options).kept
    x = unit(scores, np.arange(600))
    means[within] = (1 - x @ x[kept].T).min(1).mean()
  assert means["cover"] < 0.9 * means["uniform"]


def test_without_embeddings_it_is_refused_by_name():
  scores, groups = make_pool(50, embeddings=None)
  with pytest.raises(InputError, match=r"select.within cover needs embeddings"):
    select(scores, groups, 10, 0, COVER)


@pytest.mark.parametrize("rows", [1, 2])
def test_tiny_groups_and_equal_rows(rows):
  count = 5 * rows
  scores, _ = make_pool(count, embeddings=np.ones((count, 3), np.float32), seen=None)
  groups = np.repeat(np.arange(5), rows)
  chosen = select(scores, groups, 5, 0, COVER)
  assert chosen.kept.sum() == 5
