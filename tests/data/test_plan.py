"""The packing plan: complete, within bounds, and never dearer than no sharing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.pool_columns import share_images
from benchmarks.pool_like_665k import draw_pool
from mllm_selector_jax.data.packing.tree_packing import make_plan

LENGTH = 40


@st.composite
def pools(draw, length=LENGTH):
  """Lengths, trunks, images and supervised tokens, with many images shared."""
  rows = draw(
    st.lists(
      st.tuples(
        st.integers(1, length),  # tokens
        st.sampled_from([0, 5, 6, 12, length]),  # trunk, if it is that long
        st.integers(0, 4),  # image
        st.integers(1, 9),  # supervised
      ),
      max_size=60,
    )
  )
  lengths, trunks, images, supervised = np.array(rows, int).reshape(-1, 4).T
  trunks = np.where((images > 0) & (trunks <= lengths), trunks, 0)
  return lengths, trunks, images.astype(np.uint64), supervised


def share(trunks, image):
  """Prefixes of rows of the same image, where the trunk is not 0."""
  trunks = np.asarray(trunks)
  return share_images(trunks, np.where(trunks > 0, image, 0).astype(np.uint64))


def plan_of(pool, length=LENGTH):
  lengths, trunks, images, supervised = pool
  return make_plan(
    lengths, length, share_images(trunks, images), 1 * (images != 0), supervised
  )


def executed(tree, lengths):
  trunk, items = tree
  return trunk + sum(int(lengths[item]) - trunk for item in items)


@settings(deadline=None)
@given(pools())
def test_a_plan_keeps_its_promises(pool):
  lengths, trunks, images, _ = pool
  plan = plan_of(pool)
  rows = [plan.row(number) for number in range(len(plan))]
  trees = [tree for row in rows for tree in row]
  assert sorted(item for _, items in trees for item in items) == [*range(len(lengths))]
  assert all(row for row in rows) and all(items for _, items in trees)
  for trunk, items in trees:
    if len(items) == 1:
      assert trunk == 0
    else:
      assert trunk > 0
      assert {int(trunks[item]) for item in items} == {trunk}
      assert len({int(images[item]) for item in items}) == 1
      assert images[items[0]] > 0
  for row in rows:
    assert sum(executed(tree, lengths) for tree in row) <= LENGTH
  assert plan.row_length == LENGTH
  assert plan.tokens(lengths).sum() <= lengths.sum()


@settings(deadline=None)
@given(pools())
def test_sums_against_loops(pool):
  lengths, _, images, supervised = pool
  plan = plan_of(pool)
  rows = [plan.row(number) for number in range(len(plan))]
  flat = [[item for _, items in row for item in items] for row in rows]
  values = supervised / 7
  np.testing.assert_allclose(
    plan.sums(values), [sum(values[item] for item in items) for items in flat]
  )
  small = supervised.astype(np.int8) * 14  # a sum would not fit into its own type
  assert plan.sums(small).tolist() == [sum(map(int, small[items])) for items in flat]
  assert plan.tokens(lengths).tolist() == [
    sum(executed(tree, lengths) for tree in row) for row in rows
  ]
  assert plan.tiles(1 * (images > 0)).tolist() == [
    sum(images[items[0]] > 0 for _, items in row) for row in rows
  ]


@settings(deadline=None)
@given(pools(), st.randoms(use_true_random=False))
def test_order_and_names_do_not_matter(pool, random):
  """Another order of the items packs as well, other keys pack the same."""
  lengths, trunks, images, supervised = pool
  plan = plan_of(pool)
  order = list(range(len(lengths)))
  random.shuffle(order)
  moved = plan_of(tuple(values[order] for values in pool))
  assert sorted(moved.tokens(lengths[order])) == sorted(plan.tokens(lengths))
  names = np.array([0, 2**64 - 1, 7, 2**63, 1], np.uint64)
  renamed = plan_of((lengths, trunks, names[images.astype(int)], supervised))
  assert equal(renamed, plan)


def equal(one, other):
  return all(
    np.array_equal(getattr(one, name), getattr(other, name))
    for name in ("items", "trees", "trunks", "rows")
  )


def test_equal_items_are_taken_in_order():
  plan = make_plan(np.full(6, 10), 20)
  assert sorted(plan.row(number) for number in range(3)) == [
    [(0, [0]), (0, [1])],
    [(0, [2]), (0, [3])],
    [(0, [4]), (0, [5])],
  ]
  assert equal(plan, make_plan(np.full(6, 10), 20))


def test_nothing_and_one():
  none = make_plan(np.zeros(0, int), 8, share(np.zeros(0, int), 0))
  assert len(none) == 0 and len(none.items) == 0
  for sums in (none.sums(np.zeros(0)), none.tokens(np.zeros(0, int))):
    assert len(sums) == 0
  assert len(none.tiles(np.zeros(0, int))) == 0
  one = make_plan(np.array([8]), 8, share([5], 3))
  assert [one.row(0)] == [[(0, [0])]]


def test_one_image_for_everything():
  """Branches of 9 and a trunk of 11: two fit behind it in 29 tokens, exactly."""
  count = 7
  plan = make_plan(np.full(count, 20), 29, share(np.full(count, 11), 1))
  assert sorted(plan.row(number) for number in range(4)) == [
    [(0, [6])],
    [(11, [0, 1])],
    [(11, [2, 3])],
    [(11, [4, 5])],
  ]
  assert sorted(plan.tokens(np.full(count, 20))) == [20, 29, 29, 29]


def test_a_group_is_split_into_the_fewest_trees():
  """Branches of 6, 5, 4, 3, 2 and 10 tokens of room: two trees, not three."""
  branches = np.array([2, 6, 3, 4, 5])
  plan = make_plan(10 + branches, 20, share(np.full(5, 10), 1))
  assert sorted(plan.row(number) for number in range(len(plan))) == [
    [(10, [0, 2, 4])],
    [(10, [1, 3])],
  ]


def test_text_fills_the_ends():
  lengths = np.array([17, 19, 6, 3])
  plan = make_plan(lengths, 30, share([10, 10, 0, 0], 4), np.array([1, 1, 0, 0]))
  assert plan.row(0) == [(10, [0, 1]), (0, [3])]
  assert plan.row(1) == [(0, [2])]


def test_without_keys_nothing_is_shared():
  lengths = np.full(9, 10)
  plan = make_plan(lengths, 100)
  assert plan.tokens(lengths).tolist() == [90]
  assert plan.tiles(np.ones(9, int)).tolist() == [9]


@pytest.mark.parametrize("lengths", [[9], [0], [3, 9, 3]])
def test_a_sample_that_no_row_holds_is_a_bug(lengths):
  with pytest.raises(AssertionError):
    make_plan(np.array(lengths), 8)


@pytest.mark.parametrize(("row_length", "fill"), [(2048, 0.90), (4096, 0.95)])
def test_fill_savings_and_balance_on_lengths_like_llava(row_length, fill):
  pool = draw_pool(40_000)
  has_image = 1 * (pool.images != 0)
  plan = make_plan(
    pool.lengths,
    row_length,
    share_images(pool.trunks, pool.images),
    has_image,
    pool.supervised,
  )
  tokens = plan.tokens(pool.lengths)
  assert tokens.sum() >= fill * len(plan) * row_length
  assert 1.4 <= pool.lengths.sum() / tokens.sum() <= 1.6
  alone = make_plan(pool.lengths, row_length)
  assert len(alone) >= 1.4 * len(plan)
  for values, most in (
    (plan.tiles(has_image), 1.15),
    (plan.sums(pool.supervised), 1.45),
  ):
    runs = np.convolve(values, np.ones(16), "valid")
    assert runs.max() <= most * runs.mean()


def test_the_drawn_pool_is_like_the_known_one():
  pool, paths = draw_pool(100_000), draw_pool(100_000, by_path=True)
  has_image = pool.images != 0
  assert abs(pool.lengths.mean() - 821) < 25
  assert abs(has_image.mean() - 624_610 / 665_298) < 1e-3
  for drawn, rows_an_image in ((paths, 1.79), (pool, 2.10)):
    distinct = len(np.unique(drawn.images)) - 1
    assert abs(has_image.sum() / distinct - rows_an_image) < 0.02
  assert pool.lengths.max() == 2048
  assert (pool.trunks == np.where(has_image, 611, 0)).all()
  assert (pool.supervised <= pool.lengths - pool.trunks).all()
  assert abs(pool.turns.mean() - 5.2) < 0.1
  again = draw_pool(100_000)
  assert all(
    np.array_equal(getattr(pool, name), getattr(again, name))
    for name in ("lengths", "images", "supervised", "turns")
  )
  small = draw_pool(1000, image_tokens=64, text_scale=1 / 9, system_tokens=4, later=0.1)
  assert set(small.trunks.tolist()) == {0, 68}
  assert 0 < ((small.trunks == 0) & (small.images != 0)).sum() < 200
