import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from mllm_selector_jax.models import attention


def plain_attention(query, key, value, segments):
  batch, length, heads, width = query.shape
  group = heads // key.shape[2]
  out = np.zeros(query.shape, np.float64)
  for b in range(batch):
    for h in range(heads):
      for i in range(length):
        seen = [j for j in range(i + 1) if segments[b, i] == segments[b, j]]
        scores = key[b, seen, h // group] @ query[b, i, h] / np.sqrt(width)
        weights = np.exp(scores - scores.max())
        out[b, i, h] = weights @ value[b, seen, h // group] / weights.sum()
  return out


def random_case(rng, batch=2, length=9, heads=4, kv_heads=2, width=4):
  shapes = [(batch, length, n, width) for n in (heads, kv_heads, kv_heads)]
  return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (4, 1), (1, 1)])
def test_agrees_with_plain_numpy(heads, kv_heads):
  rng = np.random.default_rng(0)
  query, key, value = random_case(rng, heads=heads, kv_heads=kv_heads)
  segments = np.array([[1] * 4 + [2] * 3 + [0] * 2, [1] * 9])
  np.testing.assert_allclose(
    attention.attend(query, key, value, segments),
    plain_attention(query, key, value, segments),
    atol=1e-6,
  )


def test_without_a_bias_everything_sees_everything():
  query, key, value = random_case(np.random.default_rng(1), length=5)
  backwards = [x[:, ::-1] for x in (query, key, value)]
  np.testing.assert_allclose(
    attention.attend_biased(*backwards, None)[:, ::-1],
    attention.attend_biased(query, key, value, None),
    atol=1e-6,
  )


@hypothesis.given(
  st.lists(st.integers(0, 3), min_size=8, max_size=8), st.integers(0, 7)
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_other_segments_and_later_tokens_change_no_bit(segments, changed):
  rng = np.random.default_rng(2)
  query, key, value = random_case(rng, batch=1, length=8)
  segments = np.array([segments])
  before = np.asarray(attention.attend(query, key, value, segments))
  for x in (query, key, value):
    x[:, changed] = 100.0
  after = np.asarray(attention.attend(query, key, value, segments))
  blind = (segments[0] != segments[0, changed]) | (np.arange(8) < changed)
  np.testing.assert_array_equal(before[0, blind], after[0, blind])


def test_one_token_sees_itself():
  query, key, value = random_case(np.random.default_rng(3), length=1, kv_heads=4)
  out = attention.attend(query, key, value, np.zeros((2, 1), np.int32))
  np.testing.assert_allclose(out, value, rtol=1e-6)


def test_the_softmax_is_float32_in_half_precision():
  rng = np.random.default_rng(4)
  query, key, value = random_case(rng, length=64)
  segments = np.ones((2, 64), np.int32)
  half = [np.asarray(x, "bfloat16") for x in (query, key, value)]
  out = attention.attend(*half, segments)
  assert out.dtype == "bfloat16"
  exact = plain_attention(*(x.astype(np.float64) for x in half), segments)
  np.testing.assert_allclose(out.astype(np.float32), exact, atol=0.02)
