import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from mllm_selector_jax.data.packing import assembly
from mllm_selector_jax.data.packing.rotary_axes import lay_axes
from mllm_selector_jax.types import Tiling
from tests.native_images import IMAGE, lay_out_grid, make_sample

TILING = Tiling(1, 4, native=True, axes=True)
PARTS = st.lists(
  st.integers(1, 5) | st.tuples(st.integers(1, 6), st.integers(1, 6)), max_size=6
)


def make_parts(drawn):
  return [part if isinstance(part, int) else lay_out_grid(*part) for part in drawn]


@pytest.fixture(scope="module")
def rope_index():
  """Positions by transformers' Qwen2.5-VL, of a sample."""
  torch = pytest.importorskip("torch")
  config = transformers.Qwen2_5_VLConfig()
  with torch.device("meta"):
    model = transformers.Qwen2_5_VLModel(config)

  def find(sample):
    ids = torch.from_numpy(sample.tokens).long()[None]
    grids = [(1, 2 * h, 2 * w) for h, w in (one.layout.grid for one in sample.images)]
    axes, delta = model.get_rope_index(
      ids, (ids == IMAGE).int(), torch.tensor(grids) if grids else None
    )
    return axes[:, 0].T.numpy(), int(delta[0, 0])

  return find


@settings(max_examples=50, deadline=None)
@given(PARTS.filter(bool))
def test_axes_are_those_of_transformers(rope_index, drawn):
  sample = make_sample(make_parts(drawn))
  axes, (wanted, delta) = lay_axes(sample, IMAGE), rope_index(sample)
  np.testing.assert_array_equal(axes, wanted)
  assert axes.max() + 1 == len(sample.tokens) + delta


def test_an_image_stands_still_in_time_and_counts_rows_and_columns():
  axes = lay_axes(make_sample([2, lay_out_grid(2, 3), 2]), IMAGE)
  assert axes.T.tolist() == [
    [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7, 8],
    [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7, 8],
    [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8],
  ]


def test_the_order_of_the_tiles_changes_no_position():
  order = np.random.default_rng(0).permutation(12)
  straight, mixed = (lay_out_grid(3, 4, order) for order in (None, order))
  np.testing.assert_array_equal(
    lay_axes(make_sample([1, straight, 1]), IMAGE),
    lay_axes(make_sample([1, mixed, 1]), IMAGE),
  )


@settings(max_examples=50, deadline=None)
@given(PARTS.filter(bool), PARTS.filter(bool))
def test_a_beginning_has_the_same_positions_whatever_follows(first, second):
  beginning = lay_axes(make_sample(make_parts(first)), IMAGE)
  whole = lay_axes(make_sample(make_parts(first + second)), IMAGE)
  np.testing.assert_array_equal(whole[: len(beginning)], beginning)


def test_trunk_and_branches_have_the_positions_and_places_of_each_sample():
  image, other = lay_out_grid(2, 2, [3, 1, 0, 2]), lay_out_grid(1, 3)
  samples = {
    0: make_sample([1, image, 3]),
    1: make_sample([1, image, 2]),
    2: make_sample([other, 2]),
  }
  pixels = {
    number: tuple(
      np.full((one.layout.tiles, 4, 4, 3), number, np.uint8) for one in sample.images
    )
    for number, sample in samples.items()
  }
  examples = {number: (samples[number], pixels[number]) for number in samples}
  shape = assembly.Shape(1, 24, 1, 8, 8, 3, TILING, trunks=True)
  trunk = 1 + len(image.tokens)
  batch, _ = assembly.assemble([[(trunk, [0, 1]), (0, [2])]], examples, shape, IMAGE)
  first, second, third = (lay_axes(samples[number], IMAGE) for number in range(3))
  assert batch.axes is not None and batch.places is not None
  laid = [first[:trunk], first[trunk:], second[trunk:], third]
  np.testing.assert_array_equal(batch.axes[0, : sum(map(len, laid))], np.vstack(laid))
  np.testing.assert_array_equal(
    batch.places[0],
    [
      [1, 1, 1, 2, 2],
      [1, 0, 1, 2, 2],
      [1, 0, 0, 2, 2],
      [1, 1, 0, 2, 2],
      [2, 0, 0, 1, 3],
      [2, 0, 1, 1, 3],
      [2, 0, 2, 1, 3],
      [0, 0, 0, 0, 0],
    ],
  )
  # The feature at each image token is the tile that has the token's place.
  at = np.flatnonzero(batch.patches[0] >= 0)
  rows, columns = batch.places[0][batch.patches[0, at], 1:3].T
  assert rows.tolist() == [0, 0, 1, 1, 0, 0, 0]
  assert columns.tolist() == [0, 1, 0, 1, 0, 1, 2]
