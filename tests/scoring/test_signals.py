import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax import losses
from mllm_selector_jax.data.packing.assembly import Owners
from mllm_selector_jax.scoring import signals, token_signals
from mllm_selector_jax.scoring.sample_columns import make_columns


def random_case(seed=0, n=9, width=6, vocab=13):
  rng = np.random.default_rng(seed)
  return (
    rng.normal(size=(n, vocab)).astype(np.float32) * 3,
    rng.integers(0, vocab, n),
    rng.normal(size=(n, width)).astype(np.float32),
  )


def plain_signals(logits, targets, hidden):
  out = {name: [] for name in ("loss", "correct", "entropy", "el2n", "grand")}
  for row, target, state in zip(logits.astype(float), targets, hidden, strict=True):
    p = np.exp(row - row.max())
    p /= p.sum()
    gradient = p.copy()
    gradient[target] -= 1
    out["loss"].append(-np.log(p[target]))
    out["correct"].append(float(row.argmax() == target))
    out["entropy"].append(-(p * np.log(p)).sum())
    out["el2n"].append(np.sqrt((gradient**2).sum()))
    # The head's gradient of this token's loss is an outer product.
    out["grand"].append(np.linalg.norm(np.outer(state, gradient)))
  return out


def test_token_signals_agree_with_plain_numpy():
  logits, targets, hidden = random_case()
  found = token_signals.token_signals(jnp.asarray(logits), jnp.asarray(targets), hidden)
  for name, wanted in plain_signals(logits, targets, hidden).items():
    np.testing.assert_allclose(found[name], wanted, rtol=2e-5, err_msg=name)


def test_gradients_pass_through_a_cap():
  logits, targets, hidden = random_case()
  cap = 4.0

  def loss(raw, target):
    return losses.token_loss(losses.cap_logits(raw, cap), target)

  slopes = jax.vmap(jax.grad(loss))(jnp.asarray(logits), jnp.asarray(targets))
  wanted = np.linalg.norm(slopes, axis=1) * np.linalg.norm(hidden, axis=1)
  capped = losses.cap_logits(logits, cap)
  found = token_signals.token_signals(capped, jnp.asarray(targets), hidden, cap)
  np.testing.assert_allclose(found["grand"], wanted, rtol=2e-5)
  plain = plain_signals(np.asarray(capped), targets, hidden)
  for name in ("loss", "correct", "entropy", "el2n"):
    np.testing.assert_allclose(found[name], plain[name], rtol=2e-5, err_msg=name)


def test_a_certain_prediction_has_no_necessity():
  logits = jnp.array([[100.0, 0.0, 0.0]])
  found = token_signals.token_signals(logits, jnp.array([0]), jnp.ones((1, 4)))
  assert all(np.isfinite(v).all() for v in found.values())
  for name in ("loss", "entropy", "el2n", "grand"):
    np.testing.assert_allclose(found[name], [0.0], atol=1e-6)
  assert found["correct"][0] == 1


def test_samples_are_means_of_their_tokens():
  item = np.array([[0, 0, 1, -1], [2, 2, 2, -1]])
  tokens = {
    name: np.arange(8, dtype=np.float32).reshape(2, 4)
    for name in signals.MEANS.values()
  }
  sums = signals.sum_by_item(tokens, item, 3)
  np.testing.assert_array_equal(sums["loss"], [1, 2, 15])
  columns = signals.sample_columns(sums, np.array([2, 1, 3]))
  np.testing.assert_allclose(columns["loss"], [0.5, 2, 5])
  np.testing.assert_allclose(columns["perplexity"], np.exp([0.5, 2, 5]))
  np.testing.assert_array_equal(columns["loss_sum"], [1, 2, 15])


def test_projection_only_above_its_width_and_seeded():
  assert signals.projection(256, 0) is None
  matrix = signals.projection(300, 0)
  assert matrix.shape == (300, 256)
  np.testing.assert_array_equal(matrix, signals.projection(300, 0))
  assert not np.array_equal(matrix, signals.projection(300, 1))
  x = np.random.default_rng(0).normal(size=(50, 300))
  kept = np.linalg.norm(x @ matrix, axis=1) / np.linalg.norm(x, axis=1)
  assert 0.8 < kept.min() and kept.max() < 1.2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_part_gathers_turns_and_embeddings_from_its_steps(order):
  rows = np.array([3, 5, 9])

  def step(item, turn, loss, answer_item, embedding):
    tokens = {name: np.array([loss], np.float32) for name in signals.MEANS.values()}
    return (
      {**tokens, "embedding": np.array([embedding], np.float32)},
      Owners(np.array([item]), np.array([turn]), np.array([answer_item])),
    )

  steps = [
    step([5, 5, 5, -1], [0, 0, 1, -1], [1, 3, 5, 99], [5, 5, -1], [[1], [3], [99]]),
    step([3, 9, 9, -1], [0, 0, 0, -1], [2, 4, 8, 99], [3, 9, -1], [[7], [8], [99]]),
  ]
  columns = make_columns(rows, [steps[i] for i in order])
  np.testing.assert_array_equal(columns["row"], rows)
  np.testing.assert_allclose(columns["loss"], [2, 9, 12])
  np.testing.assert_array_equal(columns["supervised"], [1, 3, 2])
  assert columns["turn_losses"] == [[2.0], [2.0, 5.0], [6.0]]
  np.testing.assert_array_equal(columns["embedding"], [[7], [2], [8]])


def test_controls_are_compared_with_the_loss():
  sums = dict.fromkeys(signals.MEANS.values(), np.array([2.0, 6.0]))
  supervised = np.array([1, 3])
  controls = {
    "no_image": np.array([3.0, 3.0]),
    "no_question": np.array([4.0, 0.0]),
    "reference": np.array([2.0, 9.0]),
  }
  columns = signals.sample_columns(sums, supervised, controls)
  np.testing.assert_allclose(columns["visual"], [3 - 2, 1 - 2])
  np.testing.assert_allclose(columns["ifd"], [2 / 4, np.inf])
  np.testing.assert_allclose(columns["excess"], [2 - 2, 2 - 3])
  assert "ifd" not in signals.sample_columns(sums, supervised)
