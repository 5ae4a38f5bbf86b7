"""The bound `probe`: against heads and neighbours of the pool as a whole."""

import dataclasses

import jax
import numpy as np
import pytest

from mllm_selector_jax.pipeline import kept_work
from mllm_selector_jax.selection.bounds import probe as probing
from mllm_selector_jax.selection.bounds.probe import FOLDS, NEIGHBOURS, agree, probe
from mllm_selector_jax.selection.overseer import NOBODY
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows

ROWS = 400


def make_pool(rows=ROWS, seed=0):
  """Answers that the embeddings half tell, three groups, and copies of rows."""
  rng = np.random.default_rng(seed)
  label = rng.integers(0, 5, rows)
  embeddings = rng.normal(size=(rows, 12)) + 1.5 * rng.normal(size=(5, 12))[label]
  groups, tie = rng.integers(0, 3, rows), rng.permutation(rows).astype(np.uint64)
  for column in (embeddings, label, groups, tie):
    column[1::40] = column[0::40]
  label[::7] = -1
  part = rng.integers(0, FOLDS, rows)
  return embeddings.astype(np.float32), label, part, groups, tie


def judge_plainly(embeddings, label, part, groups, tie):
  x = embeddings.astype(np.float64)
  x /= np.linalg.norm(x, axis=1, keepdims=True)
  wide = np.concatenate([x, np.ones((len(x), 1))], 1)
  known = np.flatnonzero(label >= 0)
  classes = np.unique(label[known])
  loss, right = np.full(len(x), np.nan), np.zeros(len(x))
  for row in known:
    others = known[part[known] != part[row]]
    gram = wide[others].T @ wide[others]
    ridge = 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
    wanted = (label[others][:, None] == classes).astype(np.float64)
    support = wide[row] @ np.linalg.solve(gram + ridge, wide[others].T @ wanted)
    same = known[(groups[known] == groups[row]) & (tie[known] != tie[row])]
    near = same[np.argsort(-(x[same] @ x[row]), kind="stable")[:NEIGHBOURS]]
    share = (label[near] == label[row]).mean() if len(near) else 0.5
    place = int(np.flatnonzero(classes == label[row])[0])
    loss[row] = 1 - (np.clip(support[place], 0, 1) + share) / 2
    right[row] = support.argmax() == place
  return loss, right


def test_it_judges_as_heads_and_neighbours_of_the_whole_pool_do():
  pool = make_pool()
  found = probe(UnitRows(pool[0]), *pool[1:])
  loss, right = judge_plainly(*pool)
  np.testing.assert_allclose(found.loss, loss, atol=1e-5)
  np.testing.assert_array_equal(found.right, right)
  assert 0.5 < right[pool[1] >= 0].mean() < 1


@pytest.mark.parametrize("count", [2, 8])
def test_parts_devices_and_the_order_of_rows_are_no_matter(count, monkeypatch):
  pool, every = make_pool(), jax.local_devices()
  monkeypatch.setattr(jax, "local_devices", lambda *_: every[:1])
  one = probe(UnitRows(pool[0]), *pool[1:])
  monkeypatch.setattr(jax, "local_devices", lambda *_: every[:count])
  monkeypatch.setattr(probing, "STEP", 37)
  monkeypatch.setattr(probing, "_PART_ROWS", 200)
  order = np.random.default_rng(1).permutation(ROWS)
  moved = [column[order] for column in pool]
  other = probe(UnitRows(moved[0]), *moved[1:])
  np.testing.assert_allclose(other.loss, one.loss[order], atol=2.0**-30)
  np.testing.assert_array_equal(other.right, one.right[order])


def test_rows_alone_copies_alone_and_no_answers():
  embeddings, label, part, groups, tie = make_pool(8, seed=2)
  nothing = probe(UnitRows(embeddings), np.full(8, -1), part, groups, tie)
  assert np.isnan(nothing.loss).all() and not nothing.right.any()
  known, label = np.ones(8, bool), np.arange(8) % 2
  alone = agree(UnitRows(embeddings), label, np.arange(8), tie, known)
  assert alone.tolist() == [0.5] * 8
  same = np.zeros(8, np.uint64)
  assert agree(UnitRows(embeddings), label, groups, same, known).tolist() == [0.5] * 8


def test_it_goes_on_from_the_neighbours_that_were_found(tmp_path, monkeypatch):
  monkeypatch.setattr(kept_work, "EVERY", 0.0)
  monkeypatch.setattr(probing, "_PART_ROWS", 1)
  pool, calls, plain = make_pool(), [], probing._agree
  wanted = probe(UnitRows(pool[0]), *pool[1:])

  def count(*arguments):
    if len(calls) == 2:
      raise KeyboardInterrupt
    calls.append(arguments)
    return plain(*arguments)

  def oversee():
    kept = kept_work.KeptWork(tmp_path, print)
    return dataclasses.replace(NOBODY, keep=kept.keep)

  monkeypatch.setattr(probing, "_agree", count)
  with pytest.raises(KeyboardInterrupt):
    probe(UnitRows(pool[0]), *pool[1:], oversee())
  calls.clear()
  found = probe(UnitRows(pool[0]), *pool[1:], oversee())
  assert len(calls) == 1  # of three groups
  np.testing.assert_array_equal(found.loss, wanted.loss)
