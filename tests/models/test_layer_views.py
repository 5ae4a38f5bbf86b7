"""Which layers have a window, and what a layer is given at run time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax.models import layer_views
from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.rope import Rope

CONFIG = DecoderConfig(
  vocab=9, width=8, mlp=8, layers=4, heads=2, kv_heads=1, head_dim=4
)
MIXED = dataclasses.replace(
  CONFIG, window=3, full_layers=(1,), window_rope=Rope(50.0), rope=Rope(900.0)
)


def make_views(config):
  def rotation(rope, head_dim):
    assert head_dim == config.head_dim
    return jnp.full((1, 2, 1, 2), rope.theta), jnp.zeros((1, 2, 1, 2))

  def see(window):
    return lambda query, key, value: query * (0 if window is None else window)

  return layer_views.make_views(config, rotation, see)


@pytest.mark.parametrize(
  ("config", "windows"),
  [
    (CONFIG, [None]),
    (dataclasses.replace(CONFIG, window=3), [3]),
    (MIXED, [None, 3]),
    (dataclasses.replace(MIXED, full_layers=(0, 1, 2, 3)), [None]),
  ],
)
def test_windows_that_layers_have(config, windows):
  assert layer_views.list_windows(config) == windows


@pytest.mark.parametrize("number", range(4))
def test_a_layer_gets_the_view_of_its_kind_whether_or_not_it_is_traced(number):
  one = jnp.ones((1, 2, 2, 4))

  def look(number):
    view = make_views(MIXED).pick(number)
    return view.cos[0, 0, 0, 0], view.seen(one, one, one)[0, 0, 0, 0]

  wanted = (900.0, 0.0) if number == 1 else (50.0, 3.0)
  assert tuple(map(float, look(number))) == wanted
  assert tuple(map(float, jax.jit(look)(number))) == wanted


def test_a_bias_is_picked_as_well():
  def rotation(rope, head_dim):
    return jnp.zeros((1, 1, 1, 2)), jnp.zeros((1, 1, 1, 2))

  views = layer_views.make_views(
    MIXED, rotation, lambda window: jnp.full((1, 5), float(window or 0))
  )
  picked = jax.jit(lambda number: views.pick(number).seen)
  np.testing.assert_array_equal(picked(1), np.zeros((1, 5)))
  np.testing.assert_array_equal(picked(2), np.full((1, 5), 3.0))


def test_without_wavelengths_of_its_own_a_window_has_those_of_all():
  views = make_views(dataclasses.replace(MIXED, window_rope=None))
  assert float(views.pick(0).cos[0, 0, 0, 0]) == 900.0
