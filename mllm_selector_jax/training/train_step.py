"""One training step: a pure function over the trainable part of the parameters."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from mllm_selector_jax import losses, sharding
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.training.optimizer_options import TRAINABLE
from mllm_selector_jax.types import Batch, InputError, Params


class State(NamedTuple):
  """What training changes: the trainable parameters and the optimizer's state."""

  params: Params
  optimizer: optax.OptState


def split_params(params: Params, trainable: str) -> tuple[Params, Params]:
  """Parameters as (trainable, frozen), by the name of a trainable set.

  Where the decoder has an adapter, that is trained in its place.
  """
  if trainable not in TRAINABLE:
    raise InputError(
      f"trainable={trainable!r} is not known; allowed: {', '.join(TRAINABLE)}."
    )
  names = set(TRAINABLE[trainable])
  if "adapter" in params and "decoder" in names:
    names = names - {"decoder"} | {"adapter"}
  return (
    {name: part for name, part in params.items() if name in names},
    {name: part for name, part in params.items() if name not in names},
  )


def batch_loss(config: MllmConfig, params: Params, batch: Batch) -> jax.Array:
  """Mean cross-entropy over the supervised tokens of the whole batch."""
  return _loss_sum(config, params, batch) / _supervised(batch)


def _supervised(batch: Batch) -> jax.Array:
  return jnp.maximum(batch.weights.sum(), 1.0)


def _loss_sum(config: MllmConfig, params: Params, batch: Batch) -> jax.Array:
  states = mllm.hidden_states(config, params, batch, batch.predict)
  token_losses = losses.supervised_losses(
    states, mllm.head(config, params), batch.targets
  )
  return (token_losses * batch.weights).sum()


def split_batch(batch: Batch, parts: int, ways: int) -> Batch:
  """A batch as `parts` equal ones, on a new leading axis.

  No row leaves its device: each gives a part of its own rows to every part.

  Args:
    batch: of parts * ways shards.
    parts: how many.
    ways: over how many devices' worth of rows the batch is spread.
  """

  def split(x):
    x = x.reshape(ways, parts, len(x) // (ways * parts), *x.shape[1:])
    x = jnp.moveaxis(x, 1, 0).reshape(parts, -1, *x.shape[3:])
    return sharding.constrain(x, (None, "batch", *[None] * (x.ndim - 2)))

  return jax.tree.map(split, batch)


def make_train_step(
  config: MllmConfig,
  optimizer: optax.GradientTransformation,
  shardings: State | None = None,
  accumulate: int = 1,
  ways: int = 1,
) -> Callable[[State, Params, Batch], tuple[State, dict[str, jax.Array]]]:
  """A jitted (state, frozen, batch) -> (state, {"loss", "grad_norm"}).

  The state's buffers are reused for the new state.

  Args:
    config: the model.
    optimizer: what `make_optimizer` gave.
    shardings: how the new state lies.
    accumulate: micro-batches whose gradients are added up before the update. The
      loss is the mean over the supervised tokens of all of them, so that their
      number changes nothing but the memory that is needed.
    ways: over how many devices' worth of rows the batch is spread.
  """

  def add_up(params, frozen, batch):
    """The gradient of the whole batch, one micro-batch after the other."""
    # Known before the first one, the count can divide each micro-batch's sum.
    count = _supervised(batch)

    def add(total, micro):
      def loss_fn(trainable):
        return _loss_sum(config, {**frozen, **trainable}, micro) / count

      total = jax.tree.map(jnp.add, total, jax.value_and_grad(loss_fn)(params))
      if shardings is not None:
        total = total[0], jax.lax.with_sharding_constraint(total[1], shardings.params)
      return total, None

    zero = jnp.zeros((), jnp.promote_types(batch.weights.dtype, jnp.float32))
    start = zero, jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, start, split_batch(batch, accumulate, ways))[0]

  def step(state: State, frozen: Params, batch: Batch):
    def loss_fn(trainable):
      return batch_loss(config, {**frozen, **trainable}, batch)

    if accumulate == 1:
      loss, gradients = jax.value_and_grad(loss_fn)(state.params)
    else:
      loss, gradients = add_up(state.params, frozen, batch)
    updates, optimizer_state = optimizer.update(
      gradients, state.optimizer, state.params
    )
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients)}
    params = optax.apply_updates(state.params, updates)
    return State(params, optimizer_state), metrics

  # What comes out lies as what went in: one compilation serves every step.
  out = None if shardings is None else (shardings, None)
  return jax.jit(step, donate_argnums=0, out_shardings=out)


def lay_out_state(optimizer: optax.GradientTransformation, params: Params) -> State:
  """How the state lies on the devices: moments as their parameters, counters whole.

  Args:
    optimizer: what `make_optimizer` gave.
    params: the trainable ones, or their shapes, with shardings.
  """
  laid = jax.tree.map(lambda x: x.sharding, params)
  first = jax.tree.leaves(laid)[0]
  whole = first
  if isinstance(first, NamedSharding):
    whole = NamedSharding(first.mesh, PartitionSpec())
  shardings = optax.tree.map_params(
    optimizer,
    lambda _, layout: layout,
    jax.eval_shape(optimizer.init, params),
    laid,
    transform_non_params=lambda _: whole,
  )
  return State(laid, shardings)


def init_state(
  optimizer: optax.GradientTransformation, params: Params
) -> tuple[State, State]:
  """The state before the first step, and how it lies on the devices."""
  laid = lay_out_state(optimizer, params)
  moments = jax.jit(optimizer.init, out_shardings=laid.optimizer)(params)
  return State(params, moments), laid
