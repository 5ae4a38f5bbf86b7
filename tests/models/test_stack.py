import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mllm_selector_jax.models import stack


class Scale(nnx.Module):
  def __init__(self, rngs):
    self.factor = nnx.Param(jax.random.normal(rngs.params(), ()))

  def __call__(self, x, offset):
    return self.factor[...] * x + offset


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("count", [None, 0, 2, 4])
def test_layers_run_in_order(count, remat):
  layers = stack.make_layers(Scale, 4, nnx.Rngs(0))
  factors = np.asarray(layers.factor[...])
  assert len(set(factors.tolist())) == 4
  wanted = np.ones((1, 2, 3))
  for factor in factors[:count]:
    wanted = factor * wanted + 0.5
  x = jnp.ones((1, 2, 3))
  found = stack.run_layers(layers, x, 0.5, count=count, remat=remat)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
