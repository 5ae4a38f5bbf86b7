"""Layers of one kind held as one module whose arrays have a leading layer axis.

One compiled block serves all layers, and every layer's array of a kind is one
leaf: for sharding, for optimizers and for checkpoints.
"""

from collections.abc import Callable

import jax
from flax import nnx
from jaxtyping import Array, Float

from mllm_selector_jax import sharding


def make_layers(create: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs):
  """`count` modules made by `create`, each from its own randomness."""
  return nnx.split_rngs(splits=count)(nnx.vmap(create))(rngs)


def run_layers(
  layers: nnx.Module,
  x: Float[Array, "B L D"],
  *args,
  count: int | None = None,
  remat: bool = False,
) -> Float[Array, "B L D"]:
  """Applies the first `count` layers (all by default), one after the other.

  Args:
    layers: what `make_layers` gave.
    x: what enters the first layer.
    *args: given to every layer after its input.
    count: layers that run.
    remat: keep only the blocks' inputs for the backward pass.

  Returns:
    What leaves the last of them.
  """
  graph, arrays = nnx.split(layers)
  if count is not None:
    arrays = jax.tree.map(lambda array: array[:count], arrays)

  def step(x, layer):
    x = nnx.merge(graph, layer)(x, *args)
    return sharding.constrain(x, ("batch", "length", "width")), None

  step = jax.checkpoint(step) if remat else step
  # A few layers run a quarter faster unrolled on CPUs; many compile too long.
  depth = len(jax.tree.leaves(arrays)[0])
  return jax.lax.scan(step, x, arrays, unroll=depth if depth <= 4 else 1)[0]
