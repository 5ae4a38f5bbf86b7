import jax
import numpy as np

from mllm_selector_jax.models import mllm
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
