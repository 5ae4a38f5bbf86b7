import math

import jax.numpy as jnp
import numpy as np
import pytest

from mllm_selector_jax.models import projector

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
  from mllm_selector_jax.models import config

  assert set(projector.ACTIVATION_FNS) == set(config.ACTIVATIONS) == set(ORACLES)
