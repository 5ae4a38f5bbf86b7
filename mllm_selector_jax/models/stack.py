"""Layers of one kind held as one module whose arrays have a leading layer axis.

One compiled block serves all layers, and every layer's array of a kind is one
leaf: for sharding, for optimizers and for checkpoints.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from mllm_selector_jax import sharding

UNROLLED = 4  # layers or fewer: a quarter faster on CPUs; more compile too long

_POLICIES = {
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def make_layers(create: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs):
  """`count` modules made by `create`, each from its own randomness."""
  return nnx.split_rngs(splits=count)(nnx.vmap(create))(rngs)


def is_unrolled(count: int) -> bool:
  """Whether so many layers are compiled one by one, not as a loop over one."""
  return count <= UNROLLED


def run_layer(
  layers: nnx.Module, number: int, x: Float[Array, "..."], *args, remat: str, **kwargs
) -> Any:
  """Applies one layer alone; `args` and `kwargs` are given to it after its input.

  Of layers that are not unrolled this would copy the layer's arrays.
  """
  graph, arrays = nnx.split(layers)

  def step(x, layer):
    return nnx.merge(graph, layer)(x, *args, **kwargs)

  if remat != "none":
    step = jax.checkpoint(step, policy=_POLICIES[remat])
  return step(x, jax.tree.map(lambda array: array[number], arrays))


def run_layers(
  layers: nnx.Module,
  x: Float[Array, "B L D"],
  *args,
  count: int | None = None,
  remat: str = "none",
  state: Any = None,
) -> Any:
  """Applies the first `count` layers (all by default), one after the other.

  Args:
    layers: what `make_layers` gave.
    x: what enters the first layer.
    *args: given to every layer after its input.
    count: layers that run.
    remat: what is kept for the backward pass: "none" keeps everything, "full" only
      the blocks' inputs, "dots" also what weights were multiplied into.
    state: a tree whose arrays have the layer axis first. A layer is then given
      its part last, and gives its output and its part's new value.

  Returns:
    What leaves the last of them; with a state, that and the new state.
  """
  graph, arrays = nnx.split(layers)
  if count is not None:
    arrays = jax.tree.map(lambda array: array[:count], arrays)

  def step(x, layer_and_state):
    layer, own = layer_and_state
    block = nnx.merge(graph, layer)
    x, own = (block(x, *args), None) if own is None else block(x, *args, own)
    return sharding.constrain(x, ("batch", "length", "width")), own

  if remat != "none":
    step = jax.checkpoint(step, policy=_POLICIES[remat])
  depth = len(jax.tree.leaves(arrays)[0])
  unroll = max(depth, 1) if is_unrolled(depth) else 1
  x, state = jax.lax.scan(step, x, (arrays, state), unroll=unroll)
  return x if state is None else (x, state)
