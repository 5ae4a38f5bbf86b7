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


ORDERS = {
  "periods": "aab" * 3,
  "periods and a beginning": "aaba" * 2 + "aa",
  "no period": "aabbbab",
  "one of a kind": "aaaaab",
  "unrolled": "aaba",
}


def make_mixed(order):
  """Layers that add and multiply, and these functions of plain floats."""
  layers = stack.Mixed({"a": Scale, "b": Shift}, order, nnx.Rngs(0))
  own = {
    "a": iter(np.asarray(layers.a.factor[...], float)),
    "b": iter(np.asarray(layers.b.change[...], float)),
  }
  steps = [(kind, next(own[kind])) for kind in order]
  return layers, steps


def run_plain(steps, x, start=0, stop=None):
  for number, (kind, value) in list(enumerate(steps))[start:stop]:
    x = value * x + number if kind == "a" else (x + value) * (1 + number)
  return x


class Shift(nnx.Module):
  def __init__(self, rngs):
    self.change = nnx.Param(jax.random.normal(rngs.params(), ()))

  def __call__(self, x, number):
    return (x + self.change[...]) * (1 + number)


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("start, stop", [(0, None), (0, -1), (2, 5)])
@pytest.mark.parametrize("name", ORDERS)
def test_layers_of_several_kinds_run_in_order(name, start, stop, remat):
  layers, steps = make_mixed(ORDERS[name])
  x = jnp.full((1, 2, 3), 1.5)

  def run(x):
    return stack.run_numbered(
      layers,
      x,
      lambda layer, x, number: layer(x, number * 1.0),
      start=start,
      stop=stop,
      remat=remat,
    )[0]

  wanted = run_plain(steps, 1.5, start, stop)
  np.testing.assert_allclose(run(x), np.full_like(x, wanted), rtol=2e-5)
  slope = run_plain(steps, 2.5, start, stop) - wanted  # all layers are affine
  gradient = jax.grad(lambda x: run(x).sum())(x)
  np.testing.assert_allclose(gradient, np.full_like(x, slope), rtol=2e-5)


@pytest.mark.parametrize("name", ORDERS)
def test_what_layers_of_several_kinds_keep_comes_back_to_them(name):
  order = ORDERS[name]
  layers, steps = make_mixed(order)

  def call(layer, x, own, number, last):
    assert not last or number == len(order) - 1
    found = layer(x, 1.0 * number)
    return found, found if own is None else own - found

  x = jnp.ones((1, 2, 3))
  last, kept = stack.run_keeping(layers, x, call)
  np.testing.assert_allclose(last, np.full_like(x, run_plain(steps, 1.0)), rtol=2e-5)
  if stack.is_unrolled(len(order)):
    found = kept
  else:
    parts = {kind: iter(kept[kind]) for kind in kept}
    found = [next(parts[kind]) for kind in order]
  for number, part in enumerate(found, 1):
    wanted = run_plain(steps, 1.0, stop=number)
    np.testing.assert_allclose(part, np.full_like(x, wanted), rtol=2e-5)
  _, differences = stack.run_keeping(layers, x, call, kept)
  for difference in jax.tree.leaves(differences):
    np.testing.assert_allclose(difference, 0, atol=1e-5 * np.abs(last).max())


def test_a_single_layer_is_run_by_its_number():
  order = ORDERS["no period"]
  layers, steps = make_mixed(order)
  for number in range(len(order)):
    x = stack.run_layer(layers, number, jnp.ones((1, 1, 2)), 1.0 * number, remat="full")
    wanted = run_plain(steps, 1.0, number, number + 1)
    np.testing.assert_allclose(x, np.full_like(x, wanted), rtol=1e-5)
