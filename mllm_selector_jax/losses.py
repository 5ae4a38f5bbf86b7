"""The only cross-entropy: per supervised token, float32, with a chunked head.

The head multiplies only the positions that predict a supervised token, a chunk
of them at a time, so logits of a whole sequence are never held.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array

CHUNK = 1024  # supervised positions of a shard whose logits are held at once


def token_loss(
  logits: Float[Array, "... V"], targets: Int[Array, "..."]
) -> Float[Array, "..."]:
  """Cross-entropy of each position, in nats, float32 or better.

  A bfloat16 softmax reorders near-ties, and selection sorts.
  """
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - picked


def map_logits(
  fn: Callable,
  hidden: Float[Array, "W T D"],
  head: Float[Array, "D V"],
  targets: Int[Array, "W T"],
  chunk: int = CHUNK,
):
  """Applies `fn(logits, targets, hidden)` to all positions, chunk by chunk.

  Args:
    fn: from float32 logits [n, V], targets [n] and hidden states [n, D] to a
      tree of arrays with leading axis n. It is recomputed in a backward pass,
      so logits are not kept for it.
    hidden: states at the supervised positions.
    head: the output projection.
    targets: the token that each position predicts.
    chunk: positions of each shard whose logits are held at once.

  Returns:
    fn's tree with leading axes W, T.
  """

  def run(hidden, targets, head):
    return _map_chunks(fn, hidden, head, targets, chunk)

  return sharding.map_row_shards(run, (hidden, targets), (head,))


def _map_chunks(fn, hidden, head, targets, chunk):
  """`map_logits` of one device's shards."""
  shards, length = targets.shape
  # Chunks cut along T and keep all shards, so that each stays on its device.
  width = max(1, min(length, chunk))
  steps = -(-length // width)
  pad = steps * width - length

  @jax.checkpoint
  def one(states_and_targets):
    states, wanted = states_and_targets
    flat = states.reshape(-1, states.shape[-1])
    wide = jnp.promote_types(flat.dtype, jnp.float32)
    logits = jnp.dot(flat, head.astype(flat.dtype), preferred_element_type=wide)
    out = fn(logits, wanted.reshape(-1), flat)
    return jax.tree.map(lambda x: x.reshape(shards, width, *x.shape[1:]), out)

  if steps == 1:
    return one((hidden, targets))
  hidden = jnp.pad(hidden, [(0, 0), (0, pad), (0, 0)])
  targets = jnp.pad(targets, [(0, 0), (0, pad)])

  def split(x):
    return jnp.moveaxis(x.reshape(shards, steps, width, *x.shape[2:]), 1, 0)

  def join(x):
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(shards, steps * width, *x.shape[3:])[:, :length]

  return jax.tree.map(join, jax.lax.map(one, (split(hidden), split(targets))))


def supervised_losses(
  states: Float[Array, "W T D"],
  head: Float[Array, "D V"],
  targets: Int[Array, "W T"],
) -> Float[Array, "W T"]:
  """Cross-entropy of every supervised token, from the states that predict them."""
  return map_logits(
    lambda logits, wanted, _: token_loss(logits, wanted), states, head, targets
  )
