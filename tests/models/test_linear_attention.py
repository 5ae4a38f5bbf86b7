"""Packed rows and trunks of a decoder with linear attention, and its convolution."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax.models import linear_attention
from tests.models import packed, trees

ROWS = [
  [(30, [5, 1, 40]), (2, [3, 3]), (1, [2])],
  [(20, []), (1, []), (70, [9, 8])],
]
LENGTH = 128


@pytest.mark.parametrize("taps", [1, 2, 4])
def test_a_convolution_sees_the_end_of_a_trunk_and_nothing_of_others(taps):
  layout = trees.lay_out(ROWS, LENGTH)
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, LENGTH, 3)))
  kernel = jnp.asarray(rng.normal(size=(taps, 3)))
  lineage = linear_attention.trace(layout.segments, layout.prefixes)
  found = linear_attention.convolve(x, kernel, lineage)
  for row in range(2):
    for place in np.flatnonzero(layout.segments[row]):
      own = (layout.segments[row] == layout.segments[row, place]) | (
        layout.segments[row] == layout.prefixes[row, place]
      )
      path = np.flatnonzero(own[: place + 1])[-taps:]
      wanted = (x[row, path] * kernel[taps - len(path) :]).sum(0)
      np.testing.assert_allclose(found[row, place], wanted, rtol=1e-5, atol=1e-6)
  # Without trunks the same, by other arithmetic.
  plain = trees.lay_out([[(30, []), (1, []), (17, [])]], LENGTH)
  both = [
    linear_attention.convolve(x[:1], kernel, linear_attention.trace(plain.segments, p))
    for p in (None, plain.prefixes)
  ]
  real = plain.segments > 0
  np.testing.assert_allclose(both[0][real], both[1][real], rtol=1e-6)


@pytest.mark.parametrize("layers", [4, 8])
def test_branches_of_a_trunk_are_samples_of_their_own(layers):
  numbers = tuple(n for n in packed.LINEAR.decoder.linear_layers if n < layers)
  decoder = dataclasses.replace(
    packed.LINEAR.decoder, layers=layers, linear_layers=numbers
  )
  config = dataclasses.replace(packed.LINEAR, decoder=decoder)
  params = packed.random_params(config)
  trees.assert_branches_are_samples(config, params, ROWS, LENGTH)


def test_a_mesh_changes_neither_states_nor_gradients():
  # Kinds in periods with a rest, as above, in fewer layers.
  decoder = dataclasses.replace(
    packed.LINEAR.decoder, layers=5, linear_layers=(0, 2, 4)
  )
  config = dataclasses.replace(packed.LINEAR, decoder=decoder)
  trees.assert_a_mesh_changes_nothing(config)
