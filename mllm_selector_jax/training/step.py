"""One training step: a pure function over the trainable part of the parameters."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from mllm_selector_jax import losses
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.types import Batch, InputError, Params

TRAINABLE = {
  "projector": ("projector",),
  "decoder": ("projector", "decoder"),
  "all": ("vision", "projector", "decoder"),
}


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
  hidden = mllm.hidden_states(config, params, batch)
  token_losses = losses.supervised_losses(
    hidden, mllm.head(config, params), batch.predict, batch.targets
  )
  total = (token_losses * batch.weights).sum()
  return total / jnp.maximum(batch.weights.sum(), 1.0)


def make_train_step(
  config: MllmConfig,
  optimizer: optax.GradientTransformation,
  shardings: State | None = None,
) -> Callable[[State, Params, Batch], tuple[State, dict[str, jax.Array]]]:
  """A jitted (state, frozen, batch) -> (state, {"loss", "grad_norm"}).

  The state's buffers are reused for the new state, which lies as `shardings`
  says.
  """

  def step(state: State, frozen: Params, batch: Batch):
    def loss_fn(trainable):
      return batch_loss(config, {**frozen, **trainable}, batch)

    loss, gradients = jax.value_and_grad(loss_fn)(state.params)
    updates, optimizer_state = optimizer.update(
      gradients, state.optimizer, state.params
    )
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(gradients)}
    params = optax.apply_updates(state.params, updates)
    return State(params, optimizer_state), metrics

  # What comes out lies as what went in: one compilation serves every step.
  out = None if shardings is None else (shardings, None)
  return jax.jit(step, donate_argnums=0, out_shardings=out)


def init_state(
  optimizer: optax.GradientTransformation, params: Params
) -> tuple[State, State]:
  """The state before the first step, and how it lies on the devices.

  Moments lie as their parameters do; counters are everywhere.
  """
  laid = jax.tree.map(lambda x: x.sharding, params)
  first = jax.tree.leaves(laid)[0]
  whole = first
  if isinstance(first, NamedSharding):
    whole = NamedSharding(first.mesh, PartitionSpec())
  shardings = optax.tree.map_params(
    optimizer,
    lambda _, sharding: sharding,
    jax.eval_shape(optimizer.init, params),
    laid,
    transform_non_params=lambda _: whole,
  )
  moments = jax.jit(optimizer.init, out_shardings=shardings)(params)
  return State(params, moments), State(laid, shardings)
