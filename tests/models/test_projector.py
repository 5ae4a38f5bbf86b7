import math

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mllm_selector_jax.models import projector
from tests.models import packed

X = np.linspace(-6, 6, 101).astype(np.float32)
ORACLES = {
  "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
  "gelu_pytorch_tanh": lambda x: (
    0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
  ),
  "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
  "silu": lambda x: x / (1 + math.exp(-x)),
}


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_activations_are_those_of_their_definition(name):
  wanted = [ORACLES[name](float(x)) for x in X]
  found = projector.ACTIVATION_FNS[name](jnp.asarray(X))
  np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_every_allowed_activation_is_there():
  from mllm_selector_jax.models import config_checks

  assert set(projector.ACTIVATION_FNS) == set(config_checks.ACTIVATIONS) == set(ORACLES)


def test_a_single_layer_is_one_product():
  config = packed.make_config(
    projector_layers=1, projector_bias=False, projector_width=64, merge=2
  )
  module = projector.Projector(config, nnx.Rngs(0))
  features = np.random.default_rng(0).normal(size=(3, 4, 16)).astype(np.float32)
  found = module(jnp.asarray(features))
  kernel = np.asarray(module.first.kernel[...])
  assert kernel.shape == (64, 16) and not hasattr(module, "second")
  wanted = features.reshape(3, 1, 64) @ kernel
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
