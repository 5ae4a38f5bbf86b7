"""The training step: a pure function of the trainable and the frozen parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from mllm_selector_jax import losses, sharding
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.lora import list_adapted
from mllm_selector_jax.training.optimizer_options import TRAINABLE
from mllm_selector_jax.types import Batch, InputError, Params


class State(NamedTuple):
  """The training state: the trainable parameters and the optimizer's state."""

  params: Params
  optimizer: optax.OptState


def split_params(params: Params, trainable: str) -> tuple[Params, Params]:
  """Divides parameters into (trainable, frozen).

  If there is an adapter, it is trained in place of the parts that it is of.

  Args:
    params: all parameters.
    trainable: a key of `TRAINABLE`.

  Raises:
    InputError: `trainable` is not a key of `TRAINABLE`.
  """
  if trainable not in TRAINABLE:
    raise InputError(
      f"trainable={trainable!r} is not known; allowed: {', '.join(TRAINABLE)}."
    )
  names = set(TRAINABLE[trainable])
  adapted = names.intersection(list_adapted(params.get("adapter", ())))
  if adapted:
    names = names - adapted | {"adapter"}
  return (
    {name: part for name, part in params.items() if name in names},
    {name: part for name, part in params.items() if name not in names},
  )


def batch_loss(config: MllmConfig, params: Params, batch: Batch) -> jax.Array:
  """Computes the mean cross-entropy over the supervised tokens of a batch."""
  return _loss_sum(config, params, batch) / _supervised(batch)


def _supervised(batch: Batch) -> jax.Array:
  return jnp.maximum(batch.weights.sum(), 1.0)


def _loss_sum(config: MllmConfig, params: Params, batch: Batch) -> jax.Array:
  states = mllm.hidden_states(config, params, batch, batch.predict)
  token_losses = losses.supervised_losses(
    states, mllm.head(config, params), batch.targets, config.decoder.logit_cap
  )
  return (token_losses * batch.weights).sum()


def split_batch(batch: Batch, parts: int, ways: int) -> Batch:
  """Splits a batch into equal micro-batches, on a new leading axis.

  No row moves to another device: every device has a share of its rows in each
  micro-batch.

  Args:
    batch: a batch of parts * ways shards.
    parts: the number of micro-batches.
    ways: the number of devices over which the rows of the batch are sharded.
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
) -> jax.stages.Wrapped:
  """Makes a jitted function (state, frozen, batch) -> (state, {"loss", "grad_norm"}).

  The buffers of the state are donated to the new state.

  Args:
    config: the model.
    optimizer: the transformation of `make_optimizer`.
    shardings: the shardings of the new state.
    accumulate: the number of micro-batches whose gradients are added before the update.
      The loss is the mean over the supervised tokens of all of them, so that the number
      of micro-batches affects only the memory.
    ways: the number of devices over which the rows of the batch are sharded.
  """

  def accumulate_gradients(params, frozen, batch):
    """Returns the loss and gradient of a batch, by a scan over its micro-batches."""
    # The loss sum of each micro-batch is divided by the count of the whole batch.
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
      loss, gradients = accumulate_gradients(state.params, frozen, batch)
    updates, optimizer_state = optimizer.update(
      gradients, state.optimizer, state.params
    )
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients)}
    params = optax.apply_updates(state.params, updates)
    return State(params, optimizer_state), metrics

  # The new state has the shardings of the old one, so that all steps share one program.
  out_shardings = None if shardings is None else (shardings, None)
  return jax.jit(step, donate_argnums=0, out_shardings=out_shardings)


def lay_out_state(optimizer: optax.GradientTransformation, params: Params) -> State:
  """Returns the shardings of the state.

  Moments are sharded like their parameters, and counters are replicated.

  Args:
    optimizer: the transformation of `make_optimizer`.
    params: the trainable parameters, or their shapes, with shardings.
  """
  param_shardings = jax.tree.map(lambda x: x.sharding, params)
  first = jax.tree.leaves(param_shardings)[0]
  replicated = first
  if isinstance(first, NamedSharding):
    replicated = NamedSharding(first.mesh, PartitionSpec())
  optimizer_shardings = optax.tree.map_params(
    optimizer,
    lambda _, param_sharding: param_sharding,
    jax.eval_shape(optimizer.init, params),
    param_shardings,
    transform_non_params=lambda _: replicated,
  )
  return State(param_shardings, optimizer_shardings)


def init_state(
  optimizer: optax.GradientTransformation, params: Params
) -> tuple[State, State]:
  """Returns the state before the first step, and its shardings."""
  shardings = lay_out_state(optimizer, params)
  moments = jax.jit(optimizer.init, out_shardings=shardings.optimizer)(params)
  return State(params, moments), shardings
