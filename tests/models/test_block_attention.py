"""Attention by blocks beside attention to all pairs under a mask."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import attention, block_attention
from mllm_selector_jax.models.stack import _POLICIES

BLOCK = block_attention.BLOCK
LENGTH = 3 * BLOCK + 7


def draw_arrays(rng, batch, length, heads=4, kv_heads=2, width=4, dtype="float32"):
  shapes = [(batch, length, n, width) for n in (heads, kv_heads, kv_heads)]
  return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def lay_out(rows, length, window=None, causal=True, prefixes=True):
  """Rows of (tokens, number of the trunk or 0), one after the other; then padding."""
  segments, positions, trunks = np.zeros((3, len(rows), length), np.int32)
  for row, parts in enumerate(rows):
    start = 0
    for number, (tokens, trunk) in enumerate(parts, 1):
      here = slice(start, min(start + tokens, length))
      before = parts[trunk - 1][0] if trunk else 0
      segments[row, here] = number
      trunks[row, here] = trunk
      positions[row, here] = before + np.arange(here.stop - start)
      start = here.stop
  return attention.Layout(
    segments, positions, trunks if prefixes else None, window, causal
  )


@functools.partial(jax.jit, static_argnames=("window", "causal", "dense", "policy"))
def run(arrays, mix, numbers, window, causal, dense, policy=None):
  """The mixed values, and the gradients of their sum with these weights."""
  layout = attention.Layout(*numbers, window, causal)
  if dense:
    attend = attention.make_biased(attention.make_bias(layout))
  else:
    tokens, rule = attention.split_layout(layout)
    blocks = block_attention.cut_rows(tokens, rule)

    def attend(*arrays):
      return block_attention.attend(*arrays, blocks, rule)

  if policy is not None:
    attend = jax.checkpoint(attend, policy=_POLICIES[policy])

  def total(arrays):
    mixed = attend(*arrays)
    return (mixed * mix).sum(), mixed

  (_, mixed), gradients = jax.value_and_grad(total, has_aux=True)(arrays)
  return mixed, *gradients


def run_both(arrays, layout, rng, policy=None):
  mix = rng.normal(size=arrays[0].shape)
  arguments = arrays, mix, layout[:3], *layout[3:]
  return run(*arguments, False, policy), run(*arguments, True)


def compare(arrays, layout, rng, tolerance, policy=None):
  for found, wanted in zip(*run_both(arrays, layout, rng, policy), strict=True):
    assert found.dtype == wanted.dtype
    found, wanted = (np.asarray(x, np.float64) for x in (found, wanted))
    largest = max(1, np.abs(wanted).max())  # gradients may be all 0
    np.testing.assert_allclose(found, wanted, atol=tolerance * largest)


parts = st.lists(st.tuples(st.integers(1, 90), st.booleans()), min_size=1, max_size=9)


@hypothesis.given(
  st.lists(parts, min_size=2, max_size=2),
  st.sampled_from([(None, True), (40, True), (100, True), (None, False)]),
  st.booleans(),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_agrees_with_all_pairs(rows, rule, shared):
  """Values and gradients, for any segments, trunks, windows and padding."""
  window, causal = rule
  described = [
    [(tokens, branch and number) for number, (tokens, branch) in enumerate(row)]
    for row in rows
  ]
  layout = lay_out(described, LENGTH, window, causal, shared)
  rng = np.random.default_rng(0)
  compare(draw_arrays(rng, 2, LENGTH), layout, rng, 1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
  "row, length",
  [
    ([(LENGTH, 0)], LENGTH),  # one segment fills the row
    ([(1, 0)] * LENGTH, LENGTH),  # every token is its own
    ([], LENGTH),  # all padding
    ([(3, 0), (2, 1)], 9),  # the row is shorter than a block
    ([(1, 0)], 1),
    ([(BLOCK, 0)] * 3, 3 * BLOCK),  # windows of a block each
  ],
)
def test_extreme_rows_agree_with_all_pairs(row, length, causal):
  rng = np.random.default_rng(1)
  layout = lay_out([row], length, causal=causal)
  compare(draw_arrays(rng, 1, length), layout, rng, 1e-5)


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 1), (1, 1)])
@pytest.mark.parametrize(
  "dtype, tolerance", [("float32", 1e-5), ("bfloat16", 2e-2), ("float64", 1e-12)]
)
def test_heads_and_types_agree_with_all_pairs(heads, kv_heads, dtype, tolerance):
  rng = np.random.default_rng(2)
  layout = lay_out([[(70, 0), (60, 1), (50, 1)]], LENGTH)
  with jax.enable_x64(dtype == "float64"):
    arrays = draw_arrays(rng, 1, LENGTH, heads, kv_heads, dtype=dtype)
    compare(arrays, layout, rng, tolerance)


@pytest.mark.parametrize("causal", [True, False])
def test_segments_need_not_lie_together(causal):
  rng = np.random.default_rng(3)
  segments = rng.integers(0, 5, (2, LENGTH)).astype(np.int32)
  layout = attention.Layout(segments, segments, None, None, causal)
  compare(draw_arrays(rng, 2, LENGTH), layout, rng, 1e-5)


@pytest.mark.parametrize("policy", ["full", "dots"])
def test_rematerialisation_changes_nothing(policy):
  rng = np.random.default_rng(4)
  layout = lay_out([[(100, 0), (60, 1)]], LENGTH)
  compare(draw_arrays(rng, 1, LENGTH), layout, rng, 1e-5, policy)


@pytest.mark.parametrize("causal", [True, False])
def test_other_segments_change_no_bit(causal):
  rng = np.random.default_rng(5)
  layout = lay_out([[(50, 0), (30, 1), (90, 0), (20, 3)]], LENGTH, causal=causal)
  arrays, mix = draw_arrays(rng, 1, LENGTH), np.ones((1, LENGTH, 4, 4))
  arguments = mix, layout[:3], *layout[3:], False
  before = run(arrays, *arguments)
  changed = np.isin(layout.segments, [3, 4, 0])[..., None, None]
  after = run([jnp.where(changed, 100.0, x) for x in arrays], *arguments)
  for one, other in zip(before, after, strict=True):
    np.testing.assert_array_equal(
      np.where(changed, 0, one), np.where(changed, 0, other)
    )


def test_only_blocks_that_are_seen_are_visited():
  # Two trees and a sample alone, each of a block or two; the last block is padding.
  row = [(BLOCK, 0), (2 * BLOCK, 1), (BLOCK, 1), (BLOCK, 0), (BLOCK, 4)]
  expected = {
    (None, True): [[0], [0, 1], [0, 1, 2], [0, 3], [4], [4, 5], [6]],
    (BLOCK + 1, True): [[0], [0, 1], [1, 2], [0, 3], [4], [4, 5], [6]],
    (None, False): [[0], [0, 1, 2], [0, 1, 2], [0, 3], [4], [4, 5], [6]],
  }
  for (window, causal), wanted in expected.items():
    layout = lay_out([row], 7 * BLOCK, window, causal)
    tokens, rule = attention.split_layout(layout)
    blocks = block_attention.cut_rows(tokens, rule)
    found = [
      order[:count].tolist()
      for order, count in zip(blocks.order[0], blocks.counts[0, :, 0], strict=True)
    ]
    assert found == wanted


@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2), (1, 2, 4)])
def test_a_mesh_changes_nothing_and_gathers_nothing(mesh):
  """Four ways of the tensor axis do not divide two heads: these stay whole."""
  rng = np.random.default_rng(6)
  rows = [[(90 + 3 * n, 0), (40, 1), (30, 0)] for n in range(8)]
  layout = lay_out(rows, LENGTH)
  arrays, mix = draw_arrays(rng, 8, LENGTH), rng.normal(size=(8, LENGTH, 4, 4))
  arguments = arrays, mix, layout[:3], *layout[3:], False
  alone = run(*arguments)
  mesh = sharding.make_mesh(*mesh)
  whole = mesh.shape["tensor"] == 4
  heads = jax.NamedSharding(
    mesh, sharding.Rules().spec(("batch", None, None if whole else "heads", None))
  )
  with sharding.use(mesh):
    laid = jax.device_put(arrays, heads), jax.device_put(mix, heads)
    laid = *laid, sharding.put_rows(layout[:3], mesh), *layout[3:], False
    found = run(*laid)
    text = run.lower(*laid).compile().as_text()
  for one, other in zip(found, alone, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)
  assert "all-gather" not in text and "all-to-all" not in text


@pytest.mark.parametrize("causal", [True, False])
def test_long_rows_are_visited_by_blocks(causal):
  short, long = (
    lay_out([[(30, 0)]], length, causal=causal)
    for length in (attention.DENSE, attention.DENSE + 1)
  )
  assert not attention.visits_blocks(short) and attention.visits_blocks(long)
  rng = np.random.default_rng(7)
  for layout in (short, long):
    arrays = draw_arrays(rng, 1, layout.segments.shape[1])
    wanted = attention.make_biased(attention.make_bias(layout))(*arrays)
    found = attention.make_attend("xla", layout)(*arrays)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
