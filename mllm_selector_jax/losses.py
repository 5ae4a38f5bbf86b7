"""Computes the cross-entropy of supervised tokens, in float32 with a chunked head.

Training, scoring and evaluation all use it. The head is applied only to the positions
that predict a supervised token, one chunk at a time, so that the logits of a whole
sequence are never in memory.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array

CHUNK = 1024  # supervised positions of a shard whose logits are in memory at once


def token_loss(
  logits: Float[Array, "... V"], targets: Int[Array, "..."]
) -> Float[Array, "..."]:
  """Computes the cross-entropy of each position in nats, in float32 or better.

  A softmax in bfloat16 would reorder near-ties, and selection sorts by the loss.

  Args:
    logits: the logits of every position.
    targets: the token that each position should predict.
  """
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - target_logits


def cap_logits(logits: Float[Array, "... V"], cap: float | None) -> jax.Array:
  """Brings logits smoothly between -cap and cap; None leaves them as they are."""
  logits = jnp.asarray(logits)
  return logits if cap is None else jnp.tanh(logits / cap) * cap


def map_logits(
  fn: Callable,
  hidden: Float[Array, "W T D"],
  head: Float[Array, "D V"],
  targets: Int[Array, "W T"],
  chunk: int = CHUNK,
  cap: float | None = None,
):
  """Applies `fn(logits, targets, hidden)` to all positions, chunk by chunk.

  Args:
    fn: a function from float32 logits [n, V], targets [n] and hidden states [n, D] to
      a tree of arrays with leading axis n. It is recomputed in the backward pass, so
      that no logits are stored.
    hidden: the hidden states at the supervised positions.
    head: the output projection.
    targets: the token that each position should predict.
    chunk: the number of positions of each shard whose logits are in memory at once.
    cap: the bound of `cap_logits`.

  Returns:
    The tree of `fn`, with leading axes W and T.
  """

  def run(hidden, targets, head):
    return _map_chunks(fn, hidden, head, targets, chunk, cap)

  return sharding.map_row_shards(run, (hidden, targets), (head,))


def _map_chunks(fn, hidden, head, targets, chunk, cap):
  """Computes `map_logits` for the shards of one device."""
  shards, length = targets.shape
  # Each chunk is a part of T for all shards, so that no shard leaves its device.
  width = max(1, min(length, chunk))
  steps = -(-length // width)
  pad = steps * width - length

  @jax.checkpoint
  def apply_to_chunk(hidden_and_targets):
    chunk_hidden, chunk_targets = hidden_and_targets
    flat = chunk_hidden.reshape(-1, chunk_hidden.shape[-1])
    logits_type = jnp.promote_types(flat.dtype, jnp.float32)
    logits = jnp.dot(flat, head.astype(flat.dtype), preferred_element_type=logits_type)
    logits = cap_logits(logits, cap)
    out = fn(logits, chunk_targets.reshape(-1), flat)
    return jax.tree.map(lambda x: x.reshape(shards, width, *x.shape[1:]), out)

  if steps == 1:
    return apply_to_chunk((hidden, targets))
  hidden = jnp.pad(hidden, [(0, 0), (0, pad), (0, 0)])
  targets = jnp.pad(targets, [(0, 0), (0, pad)])

  def split(x):
    return jnp.moveaxis(x.reshape(shards, steps, width, *x.shape[2:]), 1, 0)

  def join(x):
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(shards, steps * width, *x.shape[3:])[:, :length]

  chunks = split(hidden), split(targets)
  return jax.tree.map(join, jax.lax.map(apply_to_chunk, chunks))


def supervised_losses(
  states: Float[Array, "W T D"],
  head: Float[Array, "D V"],
  targets: Int[Array, "W T"],
  cap: float | None = None,
) -> Float[Array, "W T"]:
  """Computes the cross-entropy of every supervised token, in nats.

  Args:
    states: the hidden states at the positions that predict the tokens.
    head: the output projection.
    targets: the supervised tokens.
    cap: the bound of `cap_logits`.
  """

  def measure(logits, targets, _):
    return token_loss(logits, targets)

  return map_logits(measure, states, head, targets, cap=cap)
