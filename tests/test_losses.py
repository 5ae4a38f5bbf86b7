import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax import losses
from mllm_selector_jax.models import decoder


def plain_loss(logits, targets):
  logits = np.asarray(logits, np.float64)
  shifted = logits - logits.max(-1, keepdims=True)
  log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
  return -np.take_along_axis(log_probs, np.asarray(targets)[..., None], -1)[..., 0]


def random_case(seed=0, batch=3, length=7, width=8, vocab=11):
  rng = np.random.default_rng(seed)
  return (
    jnp.asarray(rng.normal(size=(batch, length, width)), jnp.float32),
    jnp.asarray(rng.normal(size=(width, vocab)), jnp.float32),
    jnp.asarray(rng.integers(0, length, (batch, 5))),
    jnp.asarray(rng.integers(0, vocab, (batch, 5))),
  )


def test_agrees_with_plain_numpy():
  hidden, head, predict, targets = random_case()
  states = np.take_along_axis(np.asarray(hidden), np.asarray(predict)[..., None], 1)
  np.testing.assert_allclose(
    losses.supervised_losses(jnp.asarray(states), head, targets),
    plain_loss(states @ np.asarray(head), targets),
    rtol=1e-5,
  )


@pytest.mark.parametrize("chunk", [1, 3, 6, 7, 9, 100])
def test_chunks_do_not_change_a_loss(chunk):
  hidden, head, predict, targets = random_case()
  states = decoder.gather_positions(hidden, predict)

  def fn(logits, wanted, _):
    return losses.token_loss(logits, wanted)

  np.testing.assert_allclose(
    losses.map_logits(fn, states, head, targets, chunk),
    losses.map_logits(fn, states, head, targets, 1000),
    rtol=1e-6,
  )


@pytest.mark.parametrize("chunk", [2, 100])
def test_capped_logits_are_those_of_the_loss(chunk):
  hidden, head, predict, targets = random_case()
  states = np.take_along_axis(np.asarray(hidden), np.asarray(predict)[..., None], 1)
  capped = 2.5 * np.tanh(states @ np.asarray(head) / 2.5)

  def fn(logits, wanted, _):
    return losses.token_loss(logits, wanted)

  states = jnp.asarray(states)
  found = losses.map_logits(fn, states, head, targets, chunk, cap=2.5)
  np.testing.assert_allclose(found, plain_loss(capped, targets), rtol=1e-5)
  whole = losses.supervised_losses(states, head, targets, 2.5)
  np.testing.assert_allclose(found, whole, rtol=1e-6)


def test_a_cap_keeps_order_and_bounds():
  logits = jnp.array([-1e9, -3.0, 0.0, 1e-3, 5.0, 1e9])
  capped = np.asarray(losses.cap_logits(logits, 4.0))
  assert (np.diff(capped) > 0).all() and capped[0] == -4 and capped[-1] == 4
  np.testing.assert_array_equal(losses.cap_logits(logits, None), logits)


def test_large_logits_stay_finite():
  logits = jnp.array([[1e4, 0.0], [-1e4, 0.0]])
  np.testing.assert_allclose(
    losses.token_loss(logits, jnp.array([1, 0])), [1e4, 1e4], rtol=1e-6
  )


def test_bfloat16_logits_are_summed_in_float32():
  logits = jnp.zeros((1, 4096), jnp.bfloat16)
  loss = losses.token_loss(logits, jnp.array([0]))
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, [np.log(4096)], rtol=1e-6)
