"""Layers of one kind held as one module whose arrays have a leading layer axis.

One compiled block serves all layers, and every layer's array of a kind is one
leaf: for sharding, for optimizers and for checkpoints.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array

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
  start: int = 0,
  stop: int | None = None,
  remat: str = "none",
) -> Float[jax.Array, "B L D"]:
  """Applies layers `start` to `stop` (all by default), one after the other.

  Args:
    layers: what `make_layers` gave.
    x: what enters the first of them.
    *args: given to every layer after its input.
    start: number of the first layer that runs.
    stop: number of the first layer that does not run any more.
    remat: what is kept for the backward pass: "none" keeps everything, "full" only
      the blocks' inputs, "dots" also what weights were multiplied into.
  """

  def call(layer, x, _):
    return layer(x, *args)

  return run_numbered(layers, x, call, start=start, stop=stop, remat=remat)[0]


def run_numbered(
  layers: nnx.Module,
  x: Float[Array, "B L D"],
  call: Callable[[nnx.Module, Any, Any], Any],
  kept: Sequence[int] = (),
  start: int = 0,
  stop: int | None = None,
  remat: str = "none",
) -> tuple[Float[jax.Array, "B L D"], Float[jax.Array, "n B L D"]]:
  """`run_layers` where a layer's number matters to what it does.

  Args:
    layers: what `make_layers` gave.
    x: what enters the first of them.
    call: (layer, its input, its number, which may be traced) -> its output.
    kept: numbers of the layers whose outputs are wanted, too.
    start, stop, remat: as in `run_layers`.

  Returns:
    What leaves the last layer, and what leaves each of `kept`.
  """
  graph, arrays = nnx.split(layers)
  numbers = np.arange(len(jax.tree.leaves(arrays)[0]))[start:stop]
  if start or stop is not None:
    arrays = jax.tree.map(lambda array: array[start:stop], arrays)

  def apply(x, layer, number):
    x = call(nnx.merge(graph, layer), x, number)
    return sharding.constrain(x, ("batch", "length", "width"))

  if remat != "none":
    apply = jax.checkpoint(apply, policy=_POLICIES[remat])

  def step(carry, numbered):
    x, outputs = carry
    x = apply(x, *numbered)
    # Outside of what is recomputed, which would keep them once for every layer.
    here = (jnp.asarray(kept, np.int32) == numbered[1]).reshape(-1, 1, 1, 1)
    return (x, jnp.where(here, x[None], outputs)), None

  x = jnp.asarray(x)
  outputs = jnp.zeros((len(kept), *x.shape), x.dtype)
  unroll = max(len(numbers), 1) if is_unrolled(len(numbers)) else 1
  return jax.lax.scan(step, (x, outputs), (arrays, numbers), unroll=unroll)[0]


def run_keeping(
  layers: nnx.Module,
  x: Float[Array, "B L D"],
  call: Callable[[nnx.Module, Any, Any, Any, bool], tuple[Any, Any]],
  state: Any = None,
) -> tuple[Any, Any]:
  """Applies all layers, each of which gives something to keep.

  Args:
    layers: what `make_layers` gave.
    x: what enters the first layer.
    call: (layer, its input, its part of the state, its number, which may be traced,
      whether it is known to be the last one) -> (its output, what is kept).
    state: a list of the layers' parts where layers are unrolled, so that none is
      copied; else a tree whose arrays have the layer axis first. None: no state.

  Returns:
    What leaves the last layer, and what is kept, in the form of a state.
  """
  graph, arrays = nnx.split(layers)
  depth = len(jax.tree.leaves(arrays)[0])
  if is_unrolled(depth):
    kept = []
    for number in range(depth):
      layer = nnx.merge(graph, jax.tree.map(lambda array, n=number: array[n], arrays))
      own = None if state is None else state[number]
      x, new = call(layer, x, own, number, number == depth - 1)
      kept.append(new)
    return x, kept

  def step(x, numbered):
    layer, own, number = numbered
    return call(nnx.merge(graph, layer), x, own, number, False)

  return jax.lax.scan(step, x, (arrays, state, np.arange(depth)))
