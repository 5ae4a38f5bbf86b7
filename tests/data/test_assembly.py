import numpy as np
import pytest

from benchmarks.pool_columns import place_image
from mllm_selector_jax.data.packing import assembly, loader
from mllm_selector_jax.types import Sample, Tiling

IMAGE = 4


def make_sample(length, supervised, turns=None, image_at=None, patches=2):
  tokens = np.arange(10, 10 + length, dtype=np.int32)
  if image_at is not None:
    tokens[image_at : image_at + patches] = IMAGE
  mask = np.zeros(length, bool)
  mask[list(supervised)] = True
  turn = np.full(length, -1, np.int32)
  turn[list(supervised)] = turns if turns is not None else 0
  sample = Sample(tokens, mask, turn, np.zeros(length, bool), False)
  return place_image(sample, IMAGE, patches)


def pixels(value):
  return (np.full((1, 4, 4, 3), value, np.uint8),)


ITEMS = assembly.Counts(
  tiles=np.array([1, 0, 1]),
  taps=np.zeros(3, int),
  supervised=np.array([2, 2, 1]),
  answers=np.array([2, 1, 1]),
)
SAMPLES = {
  0: (make_sample(6, [3, 5], [0, 1], image_at=1), pixels(7)),
  1: (make_sample(4, [2, 3]), ()),
  2: (make_sample(5, [4], image_at=0), pixels(9)),
}


def lay(rows, shards, least=1):
  counts = assembly.count_rows(rows, ITEMS)
  shape = assembly.find_shape([len(rows)], counts, 12, Tiling(2, 4), shards, least)
  return shape, *assembly.assemble(loader.as_trees(rows), SAMPLES, shape, IMAGE)


def test_rows_hold_every_sample_where_it_lies():
  shape, batch, owners = lay([[0, 1], [2]], shards=4)
  assert (shape.rows, shape.tiles, shape.supervised, shape.answers) == (4, 1, 8, 3)
  np.testing.assert_array_equal(batch.segments[0], [1] * 6 + [2] * 4 + [0] * 2)
  np.testing.assert_array_equal(batch.positions[0, :10], [*range(6), *range(4)])
  np.testing.assert_array_equal(batch.patches[0, :4], [-1, 0, 1, -1])
  np.testing.assert_array_equal(batch.patches[1, :3], [0, 1, -1])
  assert batch.images[0, 0, 0, 0, 0] == 7 and batch.images[1, 0, 0, 0, 0] == 9
  assert not batch.segments[2:].any() and not batch.weights[2:].any()
  # A supervised token is predicted by the position before it.
  np.testing.assert_array_equal(batch.predict[0, :4], [2, 4, 7, 8])
  np.testing.assert_array_equal(batch.targets[0, :4], [13, 15, 12, 13])
  np.testing.assert_array_equal(owners.item[0, :5], [0, 0, 1, 1, -1])
  np.testing.assert_array_equal(owners.turn[0, :4], [0, 1, 0, 0])
  np.testing.assert_array_equal(batch.answers[0], [2, 4, 7])
  np.testing.assert_array_equal(owners.answer_item[0], [0, 0, 1])
  assert batch.weights.sum() == 5 == (owners.item >= 0).sum()
  assert batch.prefixes is None


def test_a_shard_counts_through_its_rows():
  shape, batch, owners = lay([[0, 1], [2]], shards=2, least=4)
  assert (shape.rows, shape.tiles, shape.supervised, shape.answers) == (4, 2, 8, 4)
  np.testing.assert_array_equal(batch.predict[0, :5], [2, 4, 7, 8, 12 + 3])
  np.testing.assert_array_equal(batch.patches[1, :3], [2, 3, -1])
  assert batch.images[0, 1, 0, 0, 0] == 9 and not batch.images[1].any()
  np.testing.assert_array_equal(owners.item[0, :5], [0, 0, 1, 1, 2])
  assert (owners.item[1] == -1).all()


def test_samples_of_an_image_lie_behind_its_trunk():
  samples = {}
  for item, (length, learned) in enumerate([(7, [5, 6]), (6, [4]), (4, [2])]):
    image = 1 if item < 2 else None
    samples[item] = make_sample(length, learned, image_at=image), ()
    if item < 2:
      samples[item] = samples[item][0], pixels(5)
  samples[1][0].tokens[3:] += 20
  shape = assembly.Shape(1, 14, 1, 1, 8, 3, Tiling(2, 4), trunks=True)
  rows = [[(3, [0, 1]), (0, [2])]]
  batch, owners = assembly.assemble(rows, samples, shape, IMAGE)
  tokens = [10, 4, 4, 13, 14, 15, 16, 33, 34, 35, 10, 11, 12, 13]
  np.testing.assert_array_equal(batch.tokens[0], tokens)
  np.testing.assert_array_equal(
    batch.segments[0], [1] * 3 + [2] * 4 + [3] * 3 + [4] * 4
  )
  np.testing.assert_array_equal(batch.prefixes[0], [-1] * 3 + [1] * 7 + [-1] * 4)
  positions = [*range(7), *range(3, 6), *range(4)]
  np.testing.assert_array_equal(batch.positions[0], positions)
  np.testing.assert_array_equal(batch.patches[0, :4], [-1, 0, 1, -1])
  np.testing.assert_array_equal(batch.predict[0, :4], [4, 5, 7, 11])
  np.testing.assert_array_equal(batch.targets[0, :4], [15, 16, 34, 12])
  np.testing.assert_array_equal(owners.item[0, :5], [0, 0, 1, 2, -1])
  assert batch.images[0, 0].min() == 5


def test_the_first_token_behind_a_trunk_is_predicted_by_the_trunk():
  sample = make_sample(5, [3, 4], image_at=1), pixels(5)
  shape = assembly.Shape(1, 9, 1, 1, 8, 2, Tiling(2, 4), trunks=True)
  batch, _ = assembly.assemble([[(3, [0, 1])]], {0: sample, 1: sample}, shape, IMAGE)
  np.testing.assert_array_equal(batch.predict[0, :4], [2, 3, 2, 5])
  np.testing.assert_array_equal(batch.answers[0], [2, 2])


def test_samples_that_do_not_begin_alike_may_not_share():
  one, other = make_sample(5, [4], image_at=1), make_sample(5, [4], image_at=0)
  shape = assembly.Shape(1, 9, 1, 1, 8, 2, Tiling(2, 4), trunks=True)
  with pytest.raises(AssertionError, match="do not begin alike"):
    assembly.assemble(
      [[(3, [0, 1])]], {0: (one, pixels(5)), 1: (other, pixels(5))}, shape, IMAGE
    )


def test_shapes_hold_the_fullest_shard_of_any_step():
  counts = assembly.Counts(
    *np.array([[1, 0, 2, 1], [0, 0, 0, 0], [3, 9, 1, 2], [1, 1, 4, 1]])
  )
  shape = assembly.find_shape([3, 1], counts, 16, Tiling(2, 4), shards=2)
  # Two rows a shard: rows 0 and 1, row 2, row 3.
  assert (shape.rows, shape.shards) == (4, 2)
  assert (shape.tiles, shape.supervised, shape.answers) == (2, 16, 4)
  empty = assembly.find_shape(
    [], assembly.Counts(*np.zeros((4, 0), int)), 16, Tiling(2, 4)
  )
  assert (empty.rows, empty.tiles, empty.supervised, empty.answers) == (1, 1, 8, 1)
