"""The experts of a layer against a loop over tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mllm_selector_jax import sharding
from mllm_selector_jax.models import experts
from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.types import InputError

WIDTH, MLP, COUNT, EACH = 12, 7, 6, 2


def make_config(**changes):
  fields = {"vocab": 9, "width": WIDTH, "mlp": MLP, "layers": 1, "heads": 2}
  fields |= {"kv_heads": 1, "head_dim": 6, "experts": COUNT, "experts_per_token": EACH}
  return DecoderConfig(**{**fields, **changes})


def make_module(config, dtype=jnp.float32, seed=0):
  rng = np.random.default_rng(seed)
  module = experts.Experts(config, dtype, nnx.Rngs(0))
  for name in ("router", "gate_up", "down"):
    leaf = getattr(module, name)
    drawn = rng.normal(size=leaf.shape) / leaf.shape[-2] ** 0.5
    leaf[...] = jnp.asarray(drawn, jnp.float32)
  return module


def draw(tokens, seed=1):
  return np.random.default_rng(seed).normal(size=(tokens, WIDTH)).astype(np.float32)


def loop(module, x):
  """In float64, token by token."""
  router, gate_up, down = (
    np.asarray(leaf[...], np.float64)
    for leaf in (module.router, module.gate_up, module.down)
  )
  out = np.zeros(x.shape)
  for token, row in enumerate(np.asarray(x, np.float64)):
    logits = row @ router
    share = np.exp(logits - logits.max())
    best = np.argsort(-share, kind="stable")[: module.config.experts_per_token]
    for expert in best:
      gate, up = np.split(row @ gate_up[expert], 2)
      given = (gate / (1 + np.exp(-gate)) * up) @ down[expert]
      out[token] += share[expert] / share[best].sum() * given
  return out


@pytest.mark.parametrize("tokens", [1, 2, 37])
@pytest.mark.parametrize("each", [1, 2, COUNT])
def test_it_is_the_loop(tokens, each):
  module = make_module(make_config(experts_per_token=each))
  x = draw(tokens)
  np.testing.assert_allclose(module(x), loop(module, x), rtol=1e-5, atol=1e-5)


def test_a_token_s_result_does_not_depend_on_the_others():
  module, x = make_module(make_config()), draw(30)
  whole = module(x)
  np.testing.assert_allclose(module(x[::-1])[::-1], whole, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(module(x[4:5])[0], whole[4], rtol=1e-6, atol=1e-6)


def test_all_tokens_may_choose_one_expert():
  module, x = make_module(make_config(experts_per_token=1)), draw(20)
  router = np.zeros((WIDTH, COUNT), np.float32)
  module.router[...] = jnp.asarray(router)
  # Equally probable: the first one is chosen.
  weights, chosen = experts.choose_experts(x, router, 1)
  assert not chosen.any() and (weights == 1).all()
  np.testing.assert_allclose(module(x), loop(module, x), rtol=1e-5, atol=1e-5)


def test_parts_of_the_experts_add_up():
  module, x = make_module(make_config()), draw(25)
  weights, chosen = experts.choose_experts(x, module.router[...], EACH)
  parts = [
    experts.run_experts(
      "silu",
      *(x, weights, chosen, np.arange(COUNT)[part]),
      *(module.gate_up[...][part], module.down[...][part]),
    )
    for part in (slice(0, 1), slice(1, 4), slice(4, COUNT))
  ]
  np.testing.assert_allclose(sum(parts), module(x), rtol=1e-6, atol=1e-6)


# Six experts on 2 devices, and on 4, which do not divide them.
@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 1, 2), (2, 1, 4), (8, 1, 1)])
def test_devices_change_nothing(shape):
  config, x = make_config(), draw(32)
  module = make_module(config)
  graph, state = nnx.split(module)

  def total(state, x):
    out = nnx.merge(graph, state)(x)
    return jnp.sin(out).sum(), out

  wanted = jax.value_and_grad(total, has_aux=True)(state, x)
  devices = jax.devices()[: int(np.prod(shape))]
  with sharding.use(sharding.make_mesh(*shape, devices=devices)):
    found = jax.jit(jax.value_and_grad(total, has_aux=True))(state, x)
  jax.tree.map(
    lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5),
    found,
    wanted,
  )


@pytest.mark.parametrize("each", [0, COUNT + 1])
def test_a_number_of_experts_that_cannot_be_is_named(each):
  with pytest.raises(InputError, match=f"a token passes {each} of {COUNT} experts"):
    make_config(experts_per_token=each)
