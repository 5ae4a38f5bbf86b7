import functools

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import attention, splash
from tests.models import trees

# What can run here: splash is interpreted, cuDNN needs its GPU.
KERNELS = ("xla", "splash")


@functools.partial(jax.jit, static_argnames=("rule", "kernel"))
def run_kernel(arrays, numbers, rule, kernel):
  return attention.make_attend(kernel, attention.Layout(*numbers, *rule))(*arrays)


def attend(query, key, value, layout, kernel="xla"):
  arrays = query, key, value
  return np.asarray(run_kernel(arrays, layout[:3], layout[3:], kernel))


def plain_attention(query, key, value, layout):
  """The rule, a query at a time."""
  segments, positions, prefixes, window, causal, _, images, _ = layout
  batch, length, heads, width = query.shape
  group = heads // key.shape[2]
  out = np.zeros(query.shape, np.float64)
  for b in range(batch):
    for i in range(length):
      groups = {segments[b, i]}
      if prefixes is not None and prefixes[b, i] > 0:
        groups.add(prefixes[b, i])
      places = [*range(i + 1 if causal else length)]
      if images is not None and images[b, i] > 0:
        own = np.flatnonzero(images[b] == images[b, i])
        places = sorted({*places, *own.tolist()})
      seen = [j for j in places if segments[b, j] in groups]
      if segments[b, i] == 0:
        seen = [i]
      if window is not None:
        seen = [j for j in seen if positions[b, i] - positions[b, j] < window]
      for h in range(heads):
        scores = key[b, seen, h // group] @ query[b, i, h] / np.sqrt(width)
        weights = np.exp(scores - scores.max())
        out[b, i, h] = weights @ value[b, seen, h // group] / weights.sum()
  return out


def random_case(rng, batch=2, length=9, heads=4, kv_heads=2, width=4):
  shapes = [(batch, length, n, width) for n in (heads, kv_heads, kv_heads)]
  return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


# Two trees and a plain sample; a trunk with no branches and branches of one
# token; padding at the end.
ROWS = ([(5, [3, 4]), (4, []), (2, [1, 1])], [(6, []), (3, [5])])


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (4, 1), (1, 1)])
@pytest.mark.parametrize("shared", [False, True])
def test_agrees_with_plain_numpy(shared, heads, kv_heads, window):
  layout = trees.lay_out(ROWS, 24)._replace(window=window)
  if not shared:
    layout = layout._replace(prefixes=None)
  arrays = random_case(
    np.random.default_rng(0), length=24, heads=heads, kv_heads=kv_heads
  )
  np.testing.assert_allclose(
    attend(*arrays, layout), plain_attention(*arrays, layout), atol=1e-6
  )


@pytest.mark.parametrize(
  "heads, kv_heads, shared, window",
  [(4, 2, False, None), (4, 2, True, None), (2, 2, False, 40), (2, 1, True, 40)],
)
def test_splash_agrees_with_plain_numpy(heads, kv_heads, shared, window):
  rows = ([(60, [40, 1]), (9, []), (1, [70, 30])], [(200, [56])])
  layout = trees.lay_out(rows, 256)._replace(window=window)
  if not shared:
    layout = layout._replace(prefixes=None)
  arrays = random_case(
    np.random.default_rng(1), length=256, heads=heads, kv_heads=kv_heads, width=8
  )
  out = attend(*arrays, layout, "splash")
  assert np.isfinite(out).all()
  real = layout.segments > 0  # splash's padding sees other padding
  wanted = plain_attention(*arrays, layout)
  np.testing.assert_allclose(out[real], wanted[real], atol=1e-5)


def test_splash_has_the_same_gradient():
  arrays = random_case(np.random.default_rng(2), batch=1, length=128, width=8)
  layout = trees.lay_out([[(60, []), (50, [])]], 128)._replace(prefixes=None)
  real = (layout.segments > 0)[..., None, None]  # splash's padding sees other padding

  def gradients(kernel):
    def total(arrays):
      return (real * attention.make_attend(kernel, layout)(*arrays) ** 2).sum()

    return jax.jit(jax.grad(total))(arrays)

  for found, wanted in zip(gradients("splash"), gradients("xla"), strict=True):
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("tensor, kv_heads", [(2, 2), (4, 2)])
def test_splash_over_a_mesh_changes_nothing(tensor, kv_heads):
  # Four ways of the tensor axis do not divide two heads: they stay whole.
  layout = trees.lay_out([[(60, [40, 20])]] * 2, 128)
  arrays = random_case(np.random.default_rng(3), length=128, kv_heads=kv_heads, width=8)
  alone = attend(*arrays, layout, "splash")
  mesh = sharding.make_mesh(2, 8 // 2 // tensor, tensor)
  if sharding.row_ways(mesh) > 2:
    layout = attention.Layout(*(np.tile(x, (2, 1)) for x in layout[:3]))
    arrays = [np.tile(x, (2, 1, 1, 1)) for x in arrays]
    alone = np.tile(alone, (2, 1, 1, 1))
  with sharding.use(mesh):
    found = attend(*arrays, layout, "splash")
  np.testing.assert_allclose(found, alone, atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [100, 512, 1000])
def test_splash_fills_rows_up(length, causal, shared):
  rows = ([(60, [20, 1]), (9, [])], [(90, [])])
  layout = trees.lay_out(rows, length)._replace(causal=causal)
  if not shared:
    layout = layout._replace(prefixes=None)
  arrays = random_case(np.random.default_rng(4), length=length, width=8)
  found, wanted = (attend(*arrays, layout, kernel) for kernel in ("splash", "xla"))
  real = layout.segments > 0  # splash's padding sees other padding
  assert found.shape == wanted.shape and np.isfinite(found).all()
  np.testing.assert_allclose(found[real], wanted[real], atol=1e-5)


@pytest.mark.parametrize(
  "length, block",
  [(1, 128), (128, 128), (255, 256), (640, 128), (1000, 512), (4100, 512)],
)
def test_large_tiles_cost_an_eighth_at_most(length, block):
  assert splash.find_block(length) == block


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("changed", ["trunk", "branch", "other", "padding"])
def test_what_is_not_seen_changes_no_bit(kernel, changed):
  rows = [[(40, [20, 1, 30]), (17, []), (5, [4])]]
  layout = trees.lay_out(rows, 128)
  segments, prefixes = layout.segments[0], layout.prefixes[0]
  number = {"trunk": 1, "branch": 2, "other": 5, "padding": 0}[changed]
  arrays = random_case(np.random.default_rng(5), batch=1, length=128, width=8)
  before = attend(*arrays, layout, kernel)
  for x in arrays:
    x[:, segments == number] = 100.0
  after = attend(*arrays, layout, kernel)
  blind = (segments != number) & (prefixes != number)
  np.testing.assert_array_equal(before[0, blind], after[0, blind])
  assert (before[0, ~blind] != after[0, ~blind]).any(axis=(1, 2)).all()


@hypothesis.given(
  st.lists(st.integers(0, 3), min_size=8, max_size=8), st.integers(0, 7)
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_other_segments_and_later_tokens_change_no_bit(segments, changed):
  rng = np.random.default_rng(6)
  query, key, value = random_case(rng, batch=1, length=8)
  segments = np.array([segments])
  layout = attention.Layout(segments, np.zeros_like(segments))
  before = attend(query, key, value, layout)
  for x in (query, key, value):
    x[:, changed] = 100.0
  after = attend(query, key, value, layout)
  blind = (segments[0] != segments[0, changed]) | (np.arange(8) < changed)
  np.testing.assert_array_equal(before[0, blind], after[0, blind])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_order_of_trees_and_branches_does_not_matter(kernel):
  order = [(9, [30, 8]), (4, []), (12, [5])]
  shuffled = [(12, [5]), (9, [8, 30]), (4, [])]
  before, after = (trees.lay_out([row], 128) for row in (order, shuffled))
  # Where each token of `order` stands in `shuffled`: trunks, then branches.
  spans = [range(9), range(9, 39), range(39, 47), range(47, 51), range(51, 68)]
  to = np.concatenate([spans[i] for i in (4, 0, 2, 1, 3)] + [range(68, 128)])
  arrays = random_case(np.random.default_rng(7), batch=1, length=128, width=8)
  moved = [x[:, to] for x in arrays]
  np.testing.assert_allclose(
    attend(*moved, after, kernel), attend(*arrays, before, kernel)[:, to], atol=1e-6
  )


def test_a_branch_reads_as_if_trunk_and_branch_were_one_sample():
  arrays = random_case(np.random.default_rng(8), batch=1, length=12)
  layout = trees.lay_out([[(5, [3, 4])]], 12)._replace(window=6)
  shared = attend(*arrays, layout)
  for branch in (slice(5, 8), slice(8, 12)):
    alone = [np.concatenate([x[:, :5], x[:, branch]], axis=1) for x in arrays]
    one = trees.lay_out([[(alone[0].shape[1], [])]], alone[0].shape[1])
    out = attend(*alone, one._replace(prefixes=None, window=6))
    np.testing.assert_allclose(shared[:, branch], out[:, 5:], atol=1e-6)


def test_a_prefix_of_0_is_none_and_ones_own_counts_once():
  arrays = random_case(np.random.default_rng(9), batch=1, length=128, width=8)
  layout = trees.lay_out([[(70, []), (30, [])]], 128)
  odd = np.where(layout.segments == 1, 1, 0)
  real = layout.segments > 0  # splash's padding sees other padding
  wanted = attend(*arrays, layout._replace(prefixes=None))
  for kernel in KERNELS:
    found = attend(*arrays, layout._replace(prefixes=odd), kernel)
    np.testing.assert_allclose(found[real], wanted[real], atol=1e-5)


def test_without_a_layout_everything_sees_everything():
  arrays = random_case(np.random.default_rng(10), length=5)
  backwards = [x[:, ::-1] for x in arrays]
  for kernel in KERNELS:
    see_all = attention.make_attend(kernel, None)
    np.testing.assert_allclose(
      see_all(*backwards)[:, ::-1], see_all(*arrays), atol=1e-6
    )


def test_one_token_sees_itself():
  arrays = random_case(np.random.default_rng(11), length=1, kv_heads=4)
  nothing = np.zeros((2, 1), np.int32)
  layout = attention.Layout(nothing, nothing, nothing - 1, window=1)
  np.testing.assert_allclose(attend(*arrays, layout), arrays[2], rtol=1e-6)


def test_the_softmax_is_float32_in_half_precision():
  arrays = random_case(np.random.default_rng(12), length=64)
  ones = np.ones((2, 64), np.int32)
  layout = attention.Layout(ones, ones)
  half = [np.asarray(x, "bfloat16") for x in arrays]
  out = attend(*half, layout)
  assert out.dtype == "bfloat16"
  exact = plain_attention(*(x.astype(np.float64) for x in half), layout)
  np.testing.assert_allclose(out.astype(np.float32), exact, atol=0.02)


@pytest.mark.parametrize("length", [1, 127, 128, 129, 1000, 1025, 4096])
def test_blocks_cover_all_queries_once(length):
  blocks = attention.cut_blocks(length)
  assert [i for first, last in blocks for i in range(first, last)] == [*range(length)]
  assert len(blocks) <= 8


@pytest.mark.parametrize("window", [None, 40])
def test_blocks_of_a_long_row_agree_with_the_whole(window):
  """Values and gradients; segments and trunks reach over the blocks' edges."""
  rng = np.random.default_rng(7)
  length = 2 * attention.BLOCK + 37
  arrays = random_case(rng, length=length)
  segments = np.repeat([[1, 2, 3, 4, 0]], [100, 60, 50, 70, length - 280], axis=1)
  prefixes = np.where((segments == 2) | (segments == 3), 1, -1)
  positions = np.concatenate([np.arange(160), 100 + np.arange(50), np.arange(70)])
  positions = np.concatenate([positions, np.arange(length - 280)])[None]
  whole = [np.repeat(x, 2, axis=0) for x in (segments, positions, prefixes)]
  layout = attention.Layout(*whole, window)
  mix = rng.normal(size=arrays[0].shape)

  def gradients(attend):
    return jax.jit(jax.grad(lambda arrays: (attend(*arrays) * mix).sum()))(arrays)

  blocks = attention.make_attend("xla", layout)
  plain = attention.make_biased(attention.make_bias(layout))
  np.testing.assert_allclose(
    jax.jit(blocks)(*arrays), jax.jit(plain)(*arrays), atol=1e-5
  )
  for a, b in zip(gradients(blocks), gradients(plain), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)
  np.testing.assert_allclose(
    blocks(*arrays), plain_attention(*arrays, layout), atol=1e-5
  )


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)
@hypothesis.given(
  st.lists(st.integers(1, 6), min_size=1, max_size=9), st.integers(0, 5), st.booleans()
)
def test_short_segments_are_seen_by_blocks_of_their_length(sizes, padding, longer):
  # Numbers need not follow each other.
  numbers = np.repeat(7 * np.arange(len(sizes)) + 3, sizes)
  segments = np.concatenate([numbers, np.zeros(padding)]).astype(np.int32)[None]
  reach = max(sizes) + 3 * longer
  case = random_case(np.random.default_rng(0), 1, segments.shape[1])
  layout = attention.Layout(
    segments, np.zeros_like(segments), causal=False, longest=reach
  )
  found = attend(*case, layout, "splash")
  real = segments[0] > 0
  assert np.isfinite(found).all()
  wanted = plain_attention(*case, layout)
  np.testing.assert_allclose(found[0, real], wanted[0, real], atol=1e-6)
