"""The gated delta rule by chunks, against a plain loop over tokens in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import delta_rule

KEY_HEADS, VALUE_HEADS, KEY, VALUE = 2, 4, 8, 6


def run_plain(query, key, value, decay, write, segments, prefixes):
  """Answers, and the states that rows end with."""
  answers = np.zeros(value.shape)
  states = np.zeros((len(value), VALUE_HEADS, KEY, VALUE))
  for row in range(len(value)):
    ends, state = {}, np.zeros(states.shape[1:])
    for n, segment in enumerate(segments[row]):
      if n == 0 or segment != segments[row, n - 1] or segment == 0:
        state = ends.get(prefixes[row, n], np.zeros(states.shape[1:])).copy()
      for head in range(VALUE_HEADS):
        of_key = key[row, n, head // (VALUE_HEADS // KEY_HEADS)]
        asked = query[row, n, head // (VALUE_HEADS // KEY_HEADS)]
        state[head] *= np.exp(decay[row, n, head])
        missing = value[row, n, head] - of_key @ state[head]
        state[head] += write[row, n, head] * np.outer(of_key, missing)
        answers[row, n, head] = asked @ state[head]
      if segment:
        ends[segment] = state.copy()
    states[row] = state
  return answers, states


# Trees of a row as (tokens of the trunk, tokens of each branch); 0 is no trunk.
ROWS = {
  "one segment": (50, [(0, [50])]),
  "segments": (30, [(0, [3]), (0, [1]), (0, [20]), (0, [1])]),
  "branches": (100, [(5, [1, 2, 3]), (0, [1]), (30, [1, 1, 40, 5]), (1, [1, 1])]),
  "trunks in one chunk": (48, [(17, [3] * 5), (9, [2, 2])]),
  "branches over chunks": (70, [(3, [33, 20])]),
  "a token": (1, [(0, [1])]),
  "padding": (9, []),
}


def lay_out(length, trees):
  """Segments and prefixes of a row."""
  segments, prefixes = np.zeros((1, length), int), np.full((1, length), -1)
  start = number = 0

  def add(tokens, parent):
    nonlocal start, number
    number += 1
    here = slice(start, start + tokens)
    segments[0, here], prefixes[0, here] = number, parent
    start += tokens
    return number

  for trunk, branches in trees:
    parent = add(trunk, -1) if trunk else -1
    for tokens in branches:
      add(tokens, parent)
  assert start <= length
  return segments, prefixes


def draw(length, rows=1, seed=0):
  rng = np.random.default_rng(seed)

  def unit():
    x = rng.normal(size=(rows, length, KEY_HEADS, KEY))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)

  value = rng.normal(size=(rows, length, VALUE_HEADS, VALUE))
  # From hardly anything to all but nothing is forgotten at a token.
  decay = -rng.exponential(size=value.shape[:3]) * 10 ** rng.uniform(-3, 1, (1, 1, 4))
  return unit(), unit(), value, decay, rng.uniform(size=value.shape[:3])


@functools.partial(jax.jit, static_argnums=2)
def run(arrays, layout, size):
  return delta_rule.scan(*arrays, delta_rule.cut_rows(*layout, size))


def as_float32(arrays):
  return [jnp.asarray(x, jnp.float32) for x in arrays]


@pytest.mark.parametrize("size", [4, 16, 64])
@pytest.mark.parametrize("name", ROWS)
def test_chunks_agree_with_a_plain_loop(name, size):
  length, trees = ROWS[name]
  segments, prefixes = lay_out(length, trees)
  arrays = draw(length)
  wanted, _ = run_plain(*arrays, segments, prefixes)
  layouts = [(segments, prefixes)]
  if (prefixes < 1).all():
    layouts.append((segments, None))
  for layout in layouts:
    answers, _ = run(as_float32(arrays), layout, size)
    assert np.isfinite(answers).all()
    real = segments > 0
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(
      np.asarray(answers)[real], wanted[real], atol=1e-5 * scale
    )


@pytest.mark.parametrize("size", [8, 64])
def test_the_state_is_what_the_last_token_leaves(size):
  segments = np.ones((2, 50), int)
  arrays = draw(50, rows=2)
  # Tokens that keep everything and write nothing change nothing.
  for x in arrays[3:]:
    x[0, 41:] = 0
  _, state = run(as_float32(arrays), (segments, None), size)
  _, wanted = run_plain(*arrays, segments, np.full_like(segments, -1))
  atol = 1e-5 * np.abs(wanted).max()
  np.testing.assert_allclose(state, wanted, atol=atol)
  _, before = run(as_float32([x[:, :41] for x in arrays]), (segments[:, :41], None), 8)
  np.testing.assert_allclose(state[0], before[0], atol=atol)


def test_tokens_one_by_one_are_a_row():
  arrays = as_float32(draw(23, rows=2))
  wanted, last = run(arrays, (np.ones((2, 23), int), None), 8)
  state = jnp.zeros_like(last)
  for n in range(23):
    answer, state = delta_rule.advance(state, *(x[:, n] for x in arrays))
    np.testing.assert_allclose(answer, wanted[:, n], atol=2e-6)
  np.testing.assert_allclose(state, last, atol=2e-6)


@pytest.mark.parametrize("name", ["segments", "branches"])
def test_gradients_do_not_depend_on_chunks(name):
  length, trees = ROWS[name]
  layout = lay_out(length, trees)
  real = jnp.asarray(layout[0] > 0)[..., None, None]
  arrays = as_float32(draw(length))
  weights = np.random.default_rng(1).normal(size=arrays[2].shape).astype(np.float32)

  @functools.partial(jax.jit, static_argnums=1)
  def differentiate(arrays, size):
    def loss(arrays):
      return (jnp.where(real, run(arrays, layout, size)[0], 0) * weights).sum()

    return jax.grad(loss)(arrays)

  # Chunks of one token are the plain recurrence.
  wanted = differentiate(arrays, 1)
  for size in (16, 64):
    for found, own in zip(differentiate(arrays, size), wanted, strict=True):
      scale = np.abs(own).max()
      assert scale > 0.1
      np.testing.assert_allclose(found, own, atol=1e-5 * scale)


@pytest.mark.parametrize("size", [1, 2, 32])
def test_inverse_of_a_triangle(size):
  rng = np.random.default_rng(0)
  lower = np.tril(rng.normal(size=(3, 2, size, size)) / 2, -1)
  inverse = delta_rule.invert(jnp.asarray(lower + np.triu(np.ones_like(lower))))
  wanted = np.linalg.inv(lower + np.eye(size))
  np.testing.assert_allclose(
    inverse, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max()
  )


def test_equal_keys_do_not_spoil_the_inverse():
  # Powers of this matrix have entries of up to 10^18, which would have to cancel out.
  lower = np.tril(np.ones((64, 64), np.float32), -1)
  wanted = np.eye(64) - np.eye(64, k=-1)
  np.testing.assert_array_equal(delta_rule.invert(jnp.asarray(lower)), wanted)


def test_a_mesh_changes_nothing():
  layout = lay_out(*ROWS["branches"])
  layout = [np.repeat(x, 4, axis=0) for x in layout]
  arrays = as_float32(draw(100, rows=4))
  wanted = run(arrays, layout, 16)
  mesh = sharding.make_mesh(data=4, tensor=2)
  with sharding.use(mesh):
    found = run(arrays, layout, 16)
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(one, other, atol=2e-6)
