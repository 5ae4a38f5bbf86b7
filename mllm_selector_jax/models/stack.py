"""Layers of one kind held as one module whose arrays have a leading layer axis.

One compiled block serves all layers, and every layer's array of a kind is one
leaf: for sharding, for optimizers and for checkpoints. Where layers are of several
kinds, each kind is such a module, and a loop goes over the periods of their order.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
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


class Mixed(nnx.Module):
  """Layers of several kinds: a module for each kind, by its name.

  Attributes:
    order: the kind of each layer.
  """

  def __init__(
    self,
    create: Mapping[str, Callable[[nnx.Rngs], nnx.Module]],
    order: Sequence[str],
    rngs: nnx.Rngs,
  ):
    self.order = tuple(order)
    for kind in dict.fromkeys(order):
      setattr(self, kind, make_layers(create[kind], self.order.count(kind), rngs))


def is_unrolled(count: int) -> bool:
  """Whether so many layers are compiled one by one, not as a loop over one."""
  return count <= UNROLLED


def _split(layers: nnx.Module) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
  """The graph and the arrays of each kind, and the kind of each layer."""
  if not isinstance(layers, Mixed):
    graph, arrays = nnx.split(layers)
    return {"": graph}, {"": arrays}, [""] * len(jax.tree.leaves(arrays)[0])
  split: dict[str, Any] = {k: nnx.split(getattr(layers, k)) for k in layers.order}
  graphs = {kind: graph for kind, (graph, _) in split.items()}
  return graphs, {kind: own for kind, (_, own) in split.items()}, list(layers.order)


def _pick(arrays: dict[str, Any], order: Sequence[str], number: int) -> Any:
  """The arrays of one layer."""
  kind = order[number]
  place = order[:number].count(kind)
  return jax.tree.map(lambda array: array[place], arrays[kind])


def _cut(
  arrays: dict[str, Any], order: Sequence[str], start: int, stop: int
) -> dict[str, Any]:
  """The arrays of the layers from `start` to `stop`."""
  if (start, stop) == (0, len(order)):
    return arrays

  def cut(kind, tree):
    first, last = (order[:end].count(kind) for end in (start, stop))
    return jax.tree.map(lambda array: array[first:last], tree)

  inside = order[start:stop]
  return {kind: cut(kind, tree) for kind, tree in arrays.items() if kind in inside}


def _find_period(order: Sequence[str]) -> int:
  """After how many layers the kinds repeat; the last repetition may be cut short."""
  lengths = range(1, len(order) + 1)
  return next(n for n in lengths if list(order[n:]) == list(order[:-n]))


def _scan(step: Callable, carry: Any, arrays: dict, order: Sequence[str], numbers: Any):
  """Goes through layers: a loop over periods, in it one over neighbours of a kind.

  Args:
    step: (kind, carry, (a layer's arrays, its number)) -> (carry, what is kept).
    carry: what enters the first layer.
    arrays: of each kind, with the layer axis first.
    order: the kinds of the layers.
    numbers: of the layers.

  Returns:
    What leaves the last layer; and of each kind what was kept, layer axis first.
  """
  unroll = is_unrolled(len(order))

  def loop(body, carry, xs, count):
    return jax.lax.scan(body, carry, xs, unroll=max(count, 1) if unroll else 1)

  def run_period(carry, xs, kinds):
    arrays, numbers = xs
    kept: dict[str, list] = {kind: [] for kind in kinds}
    place, done = 0, dict.fromkeys(kinds, 0)
    for kind, run in itertools.groupby(kinds):
      count, first = len(list(run)), done[kind]
      own = arrays[kind]
      if count < kinds.count(kind):
        own = jax.tree.map(lambda x, a=first, n=count: x[a : a + n], own)
      xs = own, numbers[place : place + count]
      body = functools.partial(step, kind)
      if count == 1:
        carry, out = body(carry, jax.tree.map(lambda x: x[0], xs))
        out = jax.tree.map(lambda x: x[None], out)
      else:
        carry, out = loop(body, carry, xs, count)
      kept[kind].append(out)
      place, done[kind] = place + count, first + count
    return carry, {kind: _join(parts) for kind, parts in kept.items()}

  if not order:
    return carry, {}
  if len(set(order)) == 1:
    kind = order[0]
    xs = arrays[kind], numbers
    carry, out = loop(functools.partial(step, kind), carry, xs, len(order))
    return carry, {kind: out}
  period = _find_period(order)
  whole = len(order) // period
  kinds, rest = list(order[:period]), list(order[period * whole :])
  parts = []

  def fold(x):
    return x.reshape(whole, -1, *x.shape[1:])

  xs = _cut(arrays, order, 0, period * whole), numbers[: period * whole]
  if whole == 1:
    carry, kept = run_period(carry, xs, kinds)
  else:
    body = functools.partial(run_period, kinds=kinds)
    carry, kept = loop(body, carry, jax.tree.map(fold, xs), whole)
    kept = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept)
  parts.append(kept)
  if rest:
    xs = _cut(arrays, order, period * whole, len(order)), numbers[period * whole :]
    carry, kept = run_period(carry, xs, rest)
    parts.append(kept)
  return carry, {k: _join([part[k] for part in parts if k in part]) for k in arrays}


def _join(trees: list) -> Any:
  """The trees' arrays, one after the other."""
  if len(trees) == 1:
    return trees[0]
  return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *trees)


def pick_layer(layers: nnx.Module, number: int) -> nnx.Module:
  """One layer alone.

  Of layers that are not unrolled this copies what is read of its arrays.
  """
  graphs, arrays, order = _split(layers)
  return nnx.merge(graphs[order[number]], _pick(arrays, order, number))


def run_layer(
  layers: nnx.Module, number: int, x: Float[Array, "..."], *args, remat: str, **kwargs
) -> Any:
  """Applies one layer alone; `args` and `kwargs` are given to it after its input.

  Of layers that are not unrolled this would copy the layer's arrays.
  """
  graphs, arrays, order = _split(layers)

  def step(x, layer):
    return nnx.merge(graphs[order[number]], layer)(x, *args, **kwargs)

  if remat != "none":
    step = jax.checkpoint(step, policy=_POLICIES[remat])
  return step(x, _pick(arrays, order, number))


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
  graphs, arrays, order = _split(layers)
  start, stop, _ = slice(start, stop).indices(len(order))
  arrays = _cut(arrays, order, start, stop)

  def apply(kind, x, layer, number):
    x = call(nnx.merge(graphs[kind], layer), x, number)
    return sharding.constrain(x, ("batch", "length", "width"))

  if remat != "none":
    apply = jax.checkpoint(apply, policy=_POLICIES[remat], static_argnums=0)

  def step(kind, carry, numbered):
    x, outputs = carry
    x = apply(kind, x, *numbered)
    # Outside of what is recomputed, which would keep them once for every layer.
    here = (jnp.asarray(kept, np.int32) == numbered[1]).reshape(-1, 1, 1, 1)
    return (x, jnp.where(here, x[None], outputs)), None

  x = jnp.asarray(x)
  outputs = jnp.zeros((len(kept), *x.shape), x.dtype)
  numbers = np.arange(start, stop)
  return _scan(step, (x, outputs), arrays, order[start:stop], numbers)[0]


def run_keeping(
  layers: nnx.Module,
  x: Float[Array, "B L D"],
  call: Callable[[nnx.Module, Any, Any, Any, bool], tuple[Any, Any]],
  state: Any = None,
  stop: int | None = None,
) -> tuple[Any, Any]:
  """Applies layers, each of which gives something to keep.

  Args:
    layers: what `make_layers` gave.
    x: what enters the first layer.
    call: (layer, its input, its part of the state, its number, which may be traced,
      whether it is known to be the last one) -> (its output, what is kept).
    state: a list of the layers' parts where layers are unrolled, so that none is
      copied; else a tree whose arrays have the layer axis first, for layers of several
      kinds one of each kind, by its name. None: no state.
    stop: number of the first layer that does not run any more; None: all run.

  Returns:
    What leaves the last layer, and what is kept, in the form of a state.
  """
  graphs, arrays, order = _split(layers)
  arrays = _cut(arrays, order, 0, len(order) if stop is None else stop)
  order = order[:stop]
  if is_unrolled(len(order)):
    kept = []
    for number, kind in enumerate(order):
      layer = nnx.merge(graphs[kind], _pick(arrays, order, number))
      own = None if state is None else state[number]
      x, new = call(layer, x, own, number, number == len(order) - 1)
      kept.append(new)
    return x, kept

  mixed = isinstance(layers, Mixed)
  states = state if mixed else {"": state}
  if state is None:
    states = dict.fromkeys(arrays)

  def step(kind, x, numbered):
    (layer, own), number = numbered
    return call(nnx.merge(graphs[kind], layer), x, own, number, False)

  both = {kind: (tree, states[kind]) for kind, tree in arrays.items()}
  x, kept = _scan(step, x, both, order, np.arange(len(order)))
  return x, kept if mixed else kept[""]


def pick_kept(kept: Any, layers: nnx.Module, number: int, stop: int | None = None):
  """Of what `run_keeping` kept of the layers before `stop`, that of one of them."""
  order = _split(layers)[2][:stop]
  if is_unrolled(len(order)):
    return kept[number]
  own = kept[order[number]] if isinstance(layers, Mixed) else kept
  place = order[:number].count(order[number])
  return jax.tree.map(lambda array: array[place], own)
