import jax
import numpy as np
import pytest

from mllm_selector_jax.models import decoder, mllm, stack
from tests.models import packed


def test_padding_does_not_change_a_state():
  config = packed.CONFIG
  hidden_states = jax.jit(mllm.hidden_states, static_argnums=0)
  params = packed.random_params(config)
  sample = packed.random_sample(config, np.random.default_rng(3), 6, image=False)
  short, long = (packed.pack(config, [[sample]], length) for length in (6, 11))
  np.testing.assert_allclose(
    hidden_states(config, params, short),
    hidden_states(config, params, long)[:, :6],
    atol=1e-5,
  )


def test_a_window_of_the_whole_row_changes_nothing():
  rng = np.random.default_rng(4)
  config = packed.make_config(decoder_window=9)
  params = packed.random_params(config)
  sample = packed.random_sample(config, rng, 9, image=False)
  batch = packed.pack(config, [[sample]], 9)
  hidden_states = jax.jit(mllm.hidden_states, static_argnums=0)
  whole = hidden_states(packed.CONFIG, params, batch)
  np.testing.assert_array_equal(hidden_states(config, params, batch), whole)
  narrow = hidden_states(packed.make_config(decoder_window=8), params, batch)
  np.testing.assert_allclose(narrow[:, :8], whole[:, :8], atol=1e-6)
  assert np.abs(narrow[:, 8] - whole[:, 8]).max() > 1e-4


def states_and_gradient(config, params, batch, at, ask):
  """The states at some positions, and the gradient of a mix of them."""

  def fn(params):
    if ask:
      states = mllm.hidden_states(config, params, batch, at)
    else:
      states = decoder.gather_positions(mllm.hidden_states(config, params, batch), at)
    mix = np.random.default_rng(0).normal(size=states.shape)
    return (states * mix).sum(), states

  (_, states), gradient = jax.jit(jax.value_and_grad(fn, has_aux=True))(params)
  return states, gradient


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("layers", [1, 3, stack.UNROLLED + 1])
@pytest.mark.parametrize("remat", ["none", "full", "dots"])
def test_states_asked_for_are_those_of_all(layers, shards, remat):
  config = packed.make_config(decoder_layers=layers, remat=remat)
  rng = np.random.default_rng(5)
  rows = [[packed.random_sample(config, rng, 6, image=i < 1)] for i in range(4)]
  batch = packed.pack(config, rows, 10)
  at = np.array([3, 8, 0, 17, 8, 12, 19, 2]).reshape(shards, -1)
  params = packed.random_params(config)
  found, its = states_and_gradient(config, params, batch, at, ask=True)
  wanted, plain = states_and_gradient(config, params, batch, at, ask=False)
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), its, plain
  )


def test_the_last_block_goes_on_where_it_is_asked_to():
  """Fewer FLOPs by the MLP and output of one block at all other positions."""
  config = packed.make_config(decoder_layers=3)
  rng = np.random.default_rng(6)
  rows = [[packed.random_sample(config, rng, 60, image=False)] for _ in range(4)]
  batch = packed.pack(config, rows, 60)

  def count(at):
    fn = jax.jit(lambda params: mllm.hidden_states(config, params, batch, at))
    return fn.lower(packed.random_params(config)).compile().cost_analysis()["flops"]

  own, few = config.decoder, np.zeros((1, 8), np.int32)
  each = 2 * own.width * (own.heads * own.head_dim + 3 * own.mlp)
  saved = count(None) - count(few)
  assert saved > each * (240 - 8)
  assert saved < 1.2 * each * (240 - 8)  # and the activations and norms


def test_a_position_out_of_one_shard_is_of_the_next_row():
  hidden = np.arange(24.0).reshape(4, 3, 2)
  found = decoder.gather_positions(hidden, np.array([[0, 4], [5, 2]]))
  np.testing.assert_array_equal(
    found, [[hidden[0, 0], hidden[1, 1]], [hidden[3, 2], hidden[2, 2]]]
  )
