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


@pytest.mark.parametrize("remat", ["none", "full", "dots"])
@pytest.mark.parametrize(
  "start, stop", [(0, None), (0, 0), (0, 2), (0, 4), (1, 3), (2, None)]
)
def test_layers_run_in_order(start, stop, remat):
  layers = stack.make_layers(Scale, 4, nnx.Rngs(0))
  factors = np.asarray(layers.factor[...])
  assert len(set(factors.tolist())) == 4
  wanted = np.ones((1, 2, 3))
  for factor in factors[start:stop]:
    wanted = factor * wanted + 0.5
  x = jnp.ones((1, 2, 3))
  found = stack.run_layers(layers, x, 0.5, start=start, stop=stop, remat=remat)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("count", [3, 6])
def test_layers_know_their_numbers_and_chosen_outputs_are_kept(count, remat):
  layers = stack.make_layers(Scale, count, nnx.Rngs(0))
  factors = np.asarray(layers.factor[...])
  kept = (0, count - 1, 1)

  def run(x):
    return stack.run_numbered(
      layers, x, lambda layer, x, number: layer(x, 1.0 * number), kept, remat=remat
    )

  x, wanted = np.ones((1, 2, 3), np.float32), []
  for number, factor in enumerate(factors):
    wanted.append(factor * (wanted[-1] if wanted else x) + number)
  last, outputs = run(x)
  np.testing.assert_allclose(last, wanted[-1], rtol=1e-5)
  np.testing.assert_allclose(outputs, [wanted[n] for n in kept], rtol=1e-5)
  # Each kept output has the gradient of the layers up to it.
  gradients = [jax.grad(lambda x, n=n: run(x)[1][n].sum())(x) for n in range(3)]
  for number, gradient in zip(kept, gradients, strict=True):
    slope = np.prod(factors[: number + 1])
    np.testing.assert_allclose(gradient, np.full_like(x, slope), rtol=1e-5)


class Gated(nnx.Module):
  def __init__(self, rngs):
    self.up = nnx.Linear(64, 256, rngs=rngs)
    self.down = nnx.Linear(256, 64, rngs=rngs)

  def __call__(self, x):
    up = self.up(x)
    return x + self.down(jnp.tanh(up) * jax.nn.sigmoid(up))


def test_each_policy_keeps_less_for_the_backward_pass():
  graph, params = nnx.split(stack.make_layers(Gated, 8, nnx.Rngs(0)))
  x = jnp.ones((4, 64, 64))

  def kept(remat):
    def loss(params):
      return stack.run_layers(nnx.merge(graph, params), x, remat=remat).sum()

    compiled = jax.jit(jax.grad(loss)).lower(params).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert kept("full") < 0.6 * kept("dots") < 0.6 * 0.8 * kept("none")
