import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax.models import decoder, mllm
from tests.models import packed


def test_rotation_is_a_complex_product():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 5, 3, 8)).astype(np.float32)
  positions = rng.integers(0, 50, (2, 5))
  cos, sin = decoder.rotation_angles(jnp.asarray(positions), 8, 100.0)
  angles = positions[..., None] / 100.0 ** (np.arange(4) / 4)
  turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)[:, :, None]
  np.testing.assert_allclose(
    decoder.rotate(x, cos, sin),
    np.concatenate([turned.real, turned.imag], -1),
    atol=1e-5,
  )


def test_only_the_distance_of_two_positions_matters():
  rng = np.random.default_rng(1)
  query, key = rng.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

  def product(first, second):
    angles = [
      decoder.rotation_angles(jnp.array([[p]]), 8, 1e4) for p in (first, second)
    ]
    turned = (
      decoder.rotate(x, *angle) for x, angle in zip((query, key), angles, strict=True)
    )
    return float(jnp.sum(next(turned) * next(turned)))

  assert product(3, 1) == pytest.approx(product(40, 38), abs=1e-5)
  assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-3)


def test_position_0_is_not_turned():
  x = np.random.default_rng(2).normal(size=(1, 1, 2, 4)).astype(np.float32)
  cos, sin = decoder.rotation_angles(jnp.zeros((1, 1), int), 4, 1e4)
  np.testing.assert_array_equal(decoder.rotate(x, cos, sin), x)


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
