"""Each rival against a plain implementation of its rule, or a library's."""

import dataclasses
import warnings

import numpy as np
import pytest

from mllm_selector_jax.selection import kmeans
from mllm_selector_jax.selection.eligibility import sort_out
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.pairwise.blocks import sort_by_group
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.rivals import (
  by_signal,
  coincide,
  d2,
  deita,
)
from mllm_selector_jax.selection.strategies import select
from tests.selection.test_strategies import make_pool

ROWS, BUDGET = 240, 50


@pytest.fixture(scope="module")
def pool():
  scores, groups = make_pool(ROWS, seed=3, count=4)
  return dataclasses.replace(scores, seen=None), groups


def kept_in_order(pool, strategy, budget=BUDGET):
  selection = select(*pool, budget, 0, SelectOptions(strategy))
  rows = np.flatnonzero(selection.kept)
  return rows[np.argsort(selection.rank[rows])].tolist()


def drawn(pool, strategy):
  """The candidates of a strategy: ties, necessity."""
  return sort_out(*pool, 0, SelectOptions(strategy), bounded=False)


def unit(pool):
  x = pool[0].embeddings.astype(np.float64)
  return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("name", ["perplexity", "el2n", "grand"])
def test_highest_signal(pool, name):
  expected = np.argsort(-pool[0].signals[name])[:BUDGET]
  assert kept_in_order(pool, name) == expected.tolist()


def test_ifd_drops_ratios_above_one(pool):
  ratio = pool[0].signals["ifd"]
  fits = np.flatnonzero(ratio <= 1)
  expected = fits[np.argsort(-ratio[fits])]
  assert kept_in_order(pool, "ifd") == expected[:BUDGET].tolist()
  selection = select(*pool, BUDGET, 0, SelectOptions("ifd"))
  assert set(selection.reason[ratio > 1]) == {
    "dropped: the instruction does not help (IFD above 1)"
  }


def test_middle_is_around_the_median(pool):
  distance = np.abs(drawn(pool, "middle").normalised_necessity - 0.5)
  kept = kept_in_order(pool, "middle")
  assert len(kept) == BUDGET
  assert distance[kept].max() <= np.delete(distance, kept).min()


def test_visnec_takes_the_top_of_twenty_clusters(pool):
  need = pool[0].signals["visual"]
  labels = kmeans.kmeans(
    pool[0].embeddings, by_signal.VISNEC_CLUSTERS, pool[0].key, 0
  ).labels
  kept = np.zeros(ROWS, bool)
  kept[kept_in_order(pool, "visnec")] = True
  assert not kept[need < 0].any()
  sizes = np.bincount(labels[need >= 0], minlength=20)
  for c in range(labels.max() + 1):
    own = (labels == c) & (need >= 0)
    assert abs((kept & own).sum() - BUDGET * sizes[c] / sizes.sum()) < 1
    if (kept & own).any() and (own & ~kept).any():
      assert need[own & kept].min() >= need[own & ~kept].max()


def test_d2_is_message_passing_then_greedy(pool):
  x, drawn_rows = unit(pool), drawn(pool, "d2")
  distance = np.linalg.norm(x[:, None] - x[None], axis=2)
  np.fill_diagonal(distance, np.inf)
  near = np.argsort(distance, axis=1)[:, : d2.NEIGHBOURS]
  score = np.array(
    [
      drawn_rows.normalised_necessity[i]
      + sum(
        np.exp(-d2.FORWARD * distance[i, j]) * drawn_rows.normalised_necessity[j]
        for j in near[i]
      )
      for i in range(ROWS)
    ]
  )
  expected = []
  for _ in range(BUDGET):
    best = max((i for i in range(ROWS) if i not in expected), key=lambda i: score[i])
    expected.append(best)
    for j in near[best]:
      score[j] -= (
        np.exp(-d2.REVERSE * distance[best, j]) * score[best] * (j not in expected)
      )
  assert kept_in_order(pool, "d2") == expected


def test_semdedup_keeps_what_no_outer_row_resembles(pool):
  x, groups = unit(pool), pool[1]
  novelty = np.empty(ROWS)
  for c in range(4):
    own = np.flatnonzero(groups.index == c)
    outwards = own[np.argsort(x[own] @ x[own].mean(0))]
    for place, row in enumerate(outwards):
      before = outwards[:place]
      novelty[row] = 1 - max((x[row] @ x[b] for b in before), default=-1)
  kept = kept_in_order(pool, "semdedup")
  np.testing.assert_allclose(novelty[kept], np.sort(novelty)[::-1][:BUDGET], atol=1e-6)


def test_k_center_is_farthest_first(pool):
  x, tie = unit(pool), drawn(pool, "k_center").tie
  expected = [int(tie.argmin())]
  while len(expected) < BUDGET:
    distance = np.linalg.norm(x[:, None] - x[expected][None], axis=2).min(1)
    expected.append(int(distance.argmax()))
  assert kept_in_order(pool, "k_center") == expected
  selection = select(*pool, BUDGET, 0, SelectOptions("k_center"))
  rest = np.linalg.norm(x[:, None] - x[expected][None], axis=2).min(1)
  np.testing.assert_allclose(
    selection.gain[~selection.kept], rest[~selection.kept], atol=2e-3
  )


def test_facility_location_is_apricots(pool, monkeypatch):
  numba = pytest.importorskip("numba")
  # Compiling apricot's loops takes far longer than running them as they are.
  monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
  apricot = pytest.importorskip("apricot")
  similarity = np.maximum(unit(pool) @ unit(pool).T, 0)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    theirs = apricot.FacilityLocationSelection(
      BUDGET, metric="precomputed", optimizer="naive"
    ).fit(similarity)
  ours = kept_in_order(pool, "facility_location")
  gains = select(*pool, BUDGET, 0, SelectOptions("facility_location")).gain
  np.testing.assert_allclose(gains[ours], theirs.gains, rtol=1e-4)
  # Two rows that are best for each other gain the same: either may go first, so the
  # sets may part, but never in what they are worth.
  worth = [similarity[list(kept)].max(0).sum() for kept in (ours, theirs.ranking)]
  assert worth[0] == pytest.approx(worth[1], rel=1e-12)
  covered = np.zeros(len(similarity))
  for row in ours:  # none would have gained more
    gain = np.maximum(similarity - covered, 0).sum(1)
    assert gain[row] == pytest.approx(gain.max(), rel=1e-5)
    covered = np.maximum(covered, similarity[row])


def test_coincide_quotas_and_matching(pool):
  x, groups = unit(pool), pool[1]
  parts = [x[groups.index == c] for c in range(4)]
  centres = [part.mean(0) / np.linalg.norm(part.mean(0)) for part in parts]
  weights = []
  for c, part in enumerate(parts):
    transfer = np.mean([centres[c] @ centres[o] for o in range(4) if o != c])
    pairs = [
      np.exp(-np.sum((p - q) ** 2) / 2)
      for i, p in enumerate(part)
      for j, q in enumerate(part)
      if i != j
    ]
    weights.append(np.exp(transfer / (0.1 * np.mean(pairs))))
  rows = UnitRows(pool[0].embeddings)
  clusters = sort_by_group(np.arange(ROWS), groups.index, pool[0].key)
  kernels = coincide.mean_kernels(rows, clusters)
  found = coincide.quotas(rows, clusters, kernels)
  np.testing.assert_allclose(found, weights / np.sum(weights), rtol=1e-3)

  def mmd(rows, whole):
    def mean(a, b):
      return np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / 2).mean()

    return mean(rows, rows) + mean(whole, whole) - 2 * mean(rows, whole)

  first = x[clusters.parts()[0]]
  expected = []
  for _ in range(12):
    rest = [i for i in range(len(first)) if i not in expected]
    best = min(rest, key=lambda i: mmd(first[[*expected, i]], first))
    expected.append(best)
  picks = coincide.match_mean(first.astype(np.float32), kernels[: len(first)], 0, 12)
  assert picks.tolist() == expected
  table = select(*pool, BUDGET, 0, SelectOptions("coincide")).table
  np.testing.assert_allclose(table.target, found, rtol=1e-3)
  room = table.kept < table.size
  np.testing.assert_array_less((BUDGET * table.target - table.kept)[room], 1)


def test_deita_goes_by_score_past_near_rows(pool):
  x, necessity = unit(pool), drawn(pool, "deita").normalised_necessity
  expected, order = [], np.argsort(-necessity)
  for row in order:
    if len(expected) < BUDGET and (
      not expected or (x[expected] @ x[row]).max() < deita.COSINE
    ):
      expected.append(row)
  assert kept_in_order(pool, "deita") == expected
  reasons = select(*pool, BUDGET, 0, SelectOptions("deita")).reason
  assert "dropped: nearly the same as a row before it" in reasons


@pytest.mark.parametrize(
  "strategy", ["k_center", "facility_location", "deita", "d2", "coincide"]
)
def test_forced_rows_count_as_kept(pool, strategy):
  scores, groups = pool
  forced = np.zeros(ROWS, bool)
  forced[[5, 77]] = True
  twins = scores.embeddings.copy()
  twins[5] = twins[6] = [9, 1, 0, 0, 0, 0, 0, 0]
  scores = dataclasses.replace(scores, forced_in=forced, embeddings=twins)
  selection = select(scores, groups, 30, 0, SelectOptions(strategy))
  assert selection.kept[[5, 77]].all()
  if strategy != "d2" and strategy != "coincide":
    assert not selection.kept[6], "a twin of a forced row adds nothing"
