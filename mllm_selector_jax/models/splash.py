"""Attention by JAX's splash kernel for TPUs; elsewhere only interpreted, for tests."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array

BLOCKS = (512, 256, 128)  # tokens of a tile; the largest that divides the row
ROWS = ("batch", "length")
HEADS = ("batch", "length", "kv_heads", None)


def attend(
  query: Float[Array, "B L H d"],
  key: Float[Array, "B L Hkv d"],
  value: Float[Array, "B L Hkv d"],
  segments: Int[Array, "B L"],
  prefixes: Int[Array, "B L"] | None = None,
  window: int | None = None,
) -> Float[jax.Array, "B L H d"]:
  """Causal attention inside segments and, with `prefixes`, to their trunks.

  Splash compares one id a query with one id a key, so a trunk takes a second
  pass, whose result is merged with the first's. That has no gradient; without
  prefixes there is one.

  Args:
    query, key, value: of the rows; see `attention.Layout` for the rest.
    segments: a number a segment, 0 for padding.
    prefixes: the trunk's segment; below 1 for none.
    window: tokens that a query sees; not together with prefixes.

  Raises:
    ValueError: the length of the rows is not a multiple of 128.
  """
  assert window is None or prefixes is None
  length = query.shape[1]
  if length % BLOCKS[-1]:
    raise ValueError(
      f"splash attention: rows of {length} tokens; only multiples of 128 can be run."
    )
  query = query * query.shape[-1] ** -0.5
  arrays, axes = [query, key, value, segments], [HEADS, HEADS, HEADS, ROWS]
  if prefixes is not None:
    # A trunk's own tokens must not be counted in both passes, and nobody sees
    # padding but itself.
    none = (prefixes < 1) | (prefixes == segments)
    arrays.append(jnp.where(none, -1, prefixes))
    axes.append(ROWS)

  def attend_part(query, key, value, segments, prefixes=None):
    # Splash takes heads before tokens, and one row.
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    heads = query.shape[1]
    if prefixes is None:
      kernel = _make_kernel(length, heads, window, residuals=False)
      mixed = _run(kernel, query, key, value, segments, segments)
    else:
      kernel = _make_kernel(length, heads, None, residuals=True)
      own, (own_weight,) = _run(kernel, query, key, value, segments, segments)
      trunk, (trunk_weight,) = _run(kernel, query, key, value, prefixes, segments)
      mixed = _merge(own, own_weight, trunk, trunk_weight)
    return jnp.swapaxes(mixed, 1, 2)

  # Mosaic kernels cannot be partitioned by the compiler.
  return sharding.map_shards(attend_part, arrays, axes, HEADS)


def _merge(
  own: Float[Array, "B H L d"],
  own_weight: Float[Array, "B H L"],
  trunk: Float[Array, "B H L d"],
  trunk_weight: Float[Array, "B H L"],
) -> Float[Array, "B H L d"]:
  """Attention over two sets of keys from each one's result and log-sum-exp.

  A query without a trunk has a finite result there, of a log-sum-exp so low
  that its share is exactly 0 and the other's exactly 1.
  """
  most = jnp.maximum(own_weight, trunk_weight)
  shares = jnp.exp(own_weight - most), jnp.exp(trunk_weight - most)
  own_share, trunk_share = (x[..., None] for x in shares)
  mixed = own_share * own.astype(jnp.float32) + trunk_share * trunk.astype(jnp.float32)
  return (mixed / (own_share + trunk_share)).astype(own.dtype)


def _run(kernel, query, key, value, query_ids, key_ids):
  from jax.experimental.pallas.ops.tpu import splash_attention

  ids = splash_attention.SegmentIds(query_ids, key_ids)
  return jax.vmap(kernel)(query, key, value, ids)


def _make_kernel(length: int, heads: int, window: int | None, residuals: bool):
  """Splash for rows of that length; with residuals also the log-sum-exp."""
  # Here, since most runs need none of it.
  from jax.experimental.pallas.ops.tpu import splash_attention

  shape = (length, length)
  mask: splash_attention.Mask = splash_attention.CausalMask(shape)
  if window is not None:
    mask = splash_attention.LocalMask(shape, (window - 1, 0), offset=0)
  block = next(block for block in BLOCKS if length % block == 0)
  sizes = splash_attention.BlockSizes(
    block_q=block,
    block_kv=block,
    block_kv_compute=block,
    block_q_dkv=block,
    block_kv_dkv=block,
    block_kv_dkv_compute=block,
    block_q_dq=block,
    block_kv_dq=block,
  )
  return splash_attention.make_splash_mha(
    splash_attention.MultiHeadMask([mask] * heads),
    block_sizes=sizes,
    head_shards=1,
    q_seq_shards=1,
    save_residuals=residuals,
    interpret=sharding.platform() == "cpu",
  )
