"""Pools whose images have many tiles or few: the plan's classes, and their shapes."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import tiled_pools
from mllm_selector_jax.data.packing import batch_shapes, row_packing, tree_packing
from mllm_selector_jax.data.packing.assembly import Counts, count_rows
from mllm_selector_jax.scoring import schedule
from mllm_selector_jax.types import Tiling

MOST_PADDING = 0.1  # of the executed tiles
# Of a shard of one packed row, which nothing can level but ever more classes.
MOST_PADDING_ALONE = 0.2


def plan(table, rows, length, step_rows=8, share=True):
  prefixes = table.prefixes.take(rows, 1) if share else None
  return tree_packing.make_plan(
    table.tokens[rows],
    length,
    prefixes,
    table.tiles[rows],
    table.supervised[rows],
    step_rows,
  )


def shape_steps(table, rows, made, batch_rows, shards):
  parts = schedule.cut_parts(made, rows, 8192, batch_rows)
  steps = schedule.Steps(made, rows, parts, batch_rows)
  counts = Counts.of_pool(table)
  return steps, schedule.find_shapes(steps, counts, Tiling(4, 8), shards)


@pytest.fixture(scope="module")
def drawn():
  return tiled_pools.draw_pool(24_000)


@pytest.mark.parametrize("name", tiled_pools.FORMS)
@pytest.mark.parametrize("length", [4096, 8192])
@pytest.mark.parametrize("shards", [1, 4, 8])
def test_little_of_the_tiles_is_padding(drawn, name, length, shards):
  table = tiled_pools.describe(drawn, tiled_pools.FORMS[name])
  rows = tiled_pools.keep_rows(table, length)
  made = plan(table, rows, length)
  assert made.classes == batch_shapes.count_shapes(
    len(made) // 8, tree_packing.MOST_CLASSES
  )
  _, shapes = shape_steps(table, rows, made, 8, shards)
  assert len(shapes.shapes) == made.classes > 2
  each = np.array([shape.tiles * shape.shards for shape in shapes.shapes])
  tiles = made.tiles(table.tiles[rows]).sum()
  padding = 1 - tiles / each[shapes.which].sum()
  assert padding <= (MOST_PADDING_ALONE if shards == 8 else MOST_PADDING)


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_every_step_fits_its_shape(drawn, shards):
  table = tiled_pools.describe(drawn, tiled_pools.FORMS["llava_onevision"])
  rows = tiled_pools.keep_rows(table, 8192)
  made = plan(table, rows, 8192, 8)
  steps, shapes = shape_steps(table, rows, made, 8, shards)
  assert len(shapes.which) == len(steps)
  assert shapes.largest.tiles == max(shape.tiles for shape in shapes.shapes)
  packed = Counts(
    made.tiles(table.tiles[rows]),
    made.taps(table.taps[rows]),
    made.sums(table.supervised[rows]),
    made.sums(table.turns[rows]),
  )
  shaped = schedule.ShapedSteps(steps, shapes.which)
  for number in range(0, len(steps), 7):
    which, trees = shaped[number]
    assert which == shapes.which[number] and trees == steps[number]
    start = 8 * number
    for first in range(start, min(start + 8, len(made)), 8 // shards):
      held = [values[first : first + 8 // shards].sum() for values in packed]
      for shape in (shapes.shapes[which], shapes.largest):
        room = shape.tiles, shape.taps, shape.supervised, shape.answers
        assert all(a <= b for a, b in zip(held, room, strict=True))


def test_steps_of_later_parts_have_the_same_shapes(drawn):
  table = tiled_pools.describe(drawn, tiled_pools.FORMS["llava_next"])
  rows = tiled_pools.keep_rows(table, 8192)
  made = plan(table, rows, 8192)
  steps, shapes = shape_steps(table, rows, made, 8, 1)
  every = schedule.ShapedSteps(steps, shapes.which)
  assert len(steps.parts) > 2
  left = schedule.Steps(made, rows, steps.parts[1:], 8)
  later = schedule.ShapedSteps(left, shapes.which)
  skipped = steps.parts[0].steps
  for number in (0, 1, len(later) - 1):
    assert later[number] == every[skipped + number]


@settings(deadline=None, max_examples=50)
@given(
  st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)), min_size=1, max_size=80),
  st.integers(1, 4),
)
def test_classes_hold_the_same_rows_in_another_order(items, classes):
  lengths, tiles = np.array(items).T
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(batch_shapes, "count_shapes", lambda steps, most: classes)
    made = tree_packing.make_plan(lengths, 40, None, tiles, lengths, 1)
  alone = tree_packing.make_plan(lengths, 40, None, tiles, lengths)

  def list_rows(plan):
    return sorted(plan.row(number) for number in range(len(plan)))

  assert list_rows(made) == list_rows(alone)
  held = made.tiles(tiles)
  if tiles.max() > 1:
    heights = batch_shapes.choose_heights(held, classes)
    class_of = np.searchsorted(heights, held)
    assert (np.diff(class_of) <= 0).all()
  else:
    assert made.items.tolist() == alone.items.tolist()


def test_pools_of_one_tile_a_row_and_short_ones_have_one_class(drawn):
  rng = np.random.default_rng(0)
  lengths, tiles = rng.integers(300, 2000, 9000), rng.integers(0, 2, 9000)
  made = tree_packing.make_plan(lengths, 2048, None, tiles, lengths, 4)
  alone = tree_packing.make_plan(lengths, 2048, None, tiles, lengths)
  assert made.classes == 1 and made.items.tolist() == alone.items.tolist()
  few = tree_packing.make_plan(lengths[:99], 2048, None, tiles[:99] * 3, None, 1)
  assert few.classes == 1


@pytest.mark.parametrize("name", tiled_pools.FORMS)
@pytest.mark.parametrize(
  ("length", "shards"), [(4096, 1), (4096, 8), (8192, 1), (8192, 8)]
)
def test_little_of_the_tiles_of_training_is_padding(drawn, name, length, shards):
  """Rows in the order of packing, in shapes by rows alone, have up to 31 % of it.

  There are as many shapes as a training of 200 steps has. The samples of a step are
  drawn, so that their tiles vary whatever a packing does.
  """
  form = tiled_pools.FORMS[name]
  table = tiled_pools.describe(drawn, form)
  counts = Counts.of_pool(table)
  rows = tiled_pools.keep_rows(table, length)
  lengths = table.tokens[rows]
  steps = row_packing.training_steps(len(rows), lengths, 128, 1, 0, length)
  steps = [[rows[items].tolist() for items in step] for step in steps]
  native = form.options.form == "native"
  tiling = Tiling(form.options.grid**2, 8, native=native)
  laid = batch_shapes.lay_out(
    steps, counts, table.tokens, length, tiling, shards, batch_shapes.MOST
  )
  assert batch_shapes.count_shapes(len(steps)) == 2
  shapes = [laid.shapes[which] for which in laid.which]
  tiles = sum(shape.tiles * shards for shape in shapes)
  padding = 1 - table.tiles[rows].sum() / tiles
  assert padding <= MOST_PADDING + 0.03
  # Fewer tiles are not bought with more rows: a plan by rows alone has as many.
  needed = np.array([-(-len(step) // shards) * shards for step in steps])
  heights = batch_shapes.choose_heights(needed, batch_shapes.MOST)
  fewest = sum(heights[at] for at in np.searchsorted(heights, needed))
  assert sum(shape.rows for shape in shapes) <= 1.03 * fewest
  for before, after, shape in zip(steps, laid.steps, shapes, strict=True):
    # Samples change rows, but not the step; no row is too long.
    assert sorted(chain(*before)) == sorted(chain(*after))
    assert max(table.tokens[row].sum() for row in after) <= length
    assert len(after) == shape.rows
    held = count_rows(after, counts)
    for most, values in (
      (shape.tiles, held.tiles),
      (shape.taps, held.taps),
      (shape.supervised, held.supervised),
      (shape.answers, held.answers),
    ):
      assert values.reshape(shards, -1).sum(1).max() <= most


@given(st.lists(st.integers(0, 40), max_size=40), st.integers(1, 8))
def test_rows_change_places_within_their_step_alone(tiles, step_rows):
  place = np.random.default_rng(0).permutation(len(tiles))
  joined = tree_packing.join_neighbours(place, np.array(tiles, int), step_rows)
  assert sorted(joined.tolist()) == list(range(len(tiles)))
  assert (joined // step_rows == place // step_rows).all()


def test_neighbours_hold_alike_many_tiles_together():
  tiles = np.array([1, 2, 3, 4, 5, 6, 7, 8])
  joined = tree_packing.join_neighbours(np.arange(8), tiles, 8)
  held = np.empty(8, int)
  held[joined] = tiles
  for shards in (1, 2, 4):
    assert set(held.reshape(shards, -1).sum(1)) == {36 // shards}


@pytest.mark.parametrize(
  ("needed", "shapes"),
  [
    ([1] * 45 + [2] * 5, [1, 2]),  # one shape would be padding in 45 steps
    ([1] * 5 + [2] * 45, [2]),  # of which 2.5 steps' work is padding
    ([1] * 8 + [9], [9]),  # fewer steps than compiling pays for
    ([1] * 20, [1]),
  ],
)
def test_a_short_training_has_a_second_shape_where_it_pays(needed, shapes):
  length = 16
  tokens = np.full(sum(needed), length)
  starts = np.cumsum([0, *needed])
  steps = [
    [[row] for row in range(start, start + count)]
    for start, count in zip(starts, needed, strict=False)
  ]
  zeros = np.zeros(len(tokens), int)
  counts = Counts(zeros, zeros, zeros + 1, zeros + 1)
  laid = batch_shapes.lay_out(steps, counts, tokens, length, Tiling(1, 1))
  assert [shape.rows for shape in laid.shapes] == shapes
  assert [len(step) for step in laid.steps] == [
    min(rows for rows in shapes if rows >= count) for count in needed
  ]
