"""Attention by JAX's splash kernel for TPUs; elsewhere only interpreted, for tests."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array

BLOCKS = (512, 256, 128)  # tokens of a tile
ROWS = ("batch", "length")
HEADS = ("batch", "length", "kv_heads", None)


def attend(
  query: Float[Array, "B L H d"],
  key: Float[Array, "B L Hkv d"],
  value: Float[Array, "B L Hkv d"],
  segments: Int[Array, "B L"],
  prefixes: Int[Array, "B L"] | None = None,
  window: int | None = None,
  causal: bool = True,
) -> Float[jax.Array, "B L H d"]:
  """Attention inside segments and, with `prefixes`, to their trunks.

  Splash compares one id a query with one id a key, so a trunk takes a second
  pass, whose result is merged with the first's. That has no gradient; without
  prefixes there is one.

  Args:
    query, key, value: of the rows; see `attention.Layout` for the rest.
    segments: a number a segment, 0 for padding.
    prefixes: the trunk's segment; below 1 for none.
    window: tokens that a query sees; not together with prefixes.
    causal: whether a query sees no later key; without it there is no window.
  """
  assert window is None or (prefixes is None and causal)
  block = find_block(query.shape[1])
  query = query * query.shape[-1] ** -0.5
  arrays, axes = [query, key, value, segments], [HEADS, HEADS, HEADS, ROWS]
  if prefixes is not None:
    # A trunk's own tokens must not be counted in both passes, and nobody sees
    # padding but itself.
    none = (prefixes < 1) | (prefixes == segments)
    arrays.append(jnp.where(none, -1, prefixes))
    axes.append(ROWS)

  def attend_part(query, key, value, segments, prefixes=None):
    length, heads = query.shape[1:3]
    query, key, value = (_fill(x, block) for x in (query, key, value))
    # What fills a row up is padding, as other places without a segment.
    segments = jnp.pad(segments, ((0, 0), (0, -length % block)))
    make_mask = functools.partial(_make_mask, segments.shape[1], heads)
    if prefixes is None:
      kernel = _make_kernel(block, make_mask(window, causal), False)
      mixed = _run(kernel, query, key, value, segments, segments)
    else:
      prefixes = jnp.pad(prefixes, ((0, 0), (0, -length % block)), constant_values=-1)
      kernel = _make_kernel(block, make_mask(None, causal), True)
      own, (own_weight,) = _run(kernel, query, key, value, segments, segments)
      trunk, (trunk_weight,) = _run(kernel, query, key, value, prefixes, segments)
      mixed = _merge(own, own_weight, trunk, trunk_weight)
    return jnp.swapaxes(mixed, 1, 2)[:, :length]

  # Mosaic kernels cannot be partitioned by the compiler.
  return sharding.map_shards(attend_part, arrays, axes, HEADS)


def attend_masked(
  query: Float[Array, "B L H d"],
  key: Float[Array, "B L Hkv d"],
  value: Float[Array, "B L Hkv d"],
  seen: Bool[Array, "B L L"],
) -> Float[jax.Array, "B L H d"]:
  """Attention under a mask of all pairs, a byte each; tiles without any are left out.

  It is slower than `attend`, since it reads the mask and goes from row to row.

  Args:
    query, key, value: of the rows.
    seen: whether a query (row) sees a key (column); each sees at least one.
  """
  block = find_block(query.shape[1])

  def attend_part(query, key, value, seen):
    length = query.shape[1]
    added = -length % block
    query, key, value = (_fill(x, block) for x in (query, key, value))
    # What fills a row up sees itself, so that its softmax is one of something.
    itself = jnp.diag(jnp.arange(length + added) >= length)[None]
    seen = jnp.pad(seen, ((0, 0), (0, added), (0, added))) | itself

    def attend_row(row):
      *arrays, seen = row
      kernel = _make_kernel(block, seen[None], False)
      # It would ask whether that is so, of what is an array while this is traced.
      kernel.fwd_mask_info = kernel.fwd_mask_info._replace(is_dynamic_mask=None)
      return kernel(*arrays)

    mixed = jax.lax.map(attend_row, (query, key, value, seen))
    return jnp.swapaxes(mixed, 1, 2)[:, :length]

  arrays = [query * query.shape[-1] ** -0.5, key, value, seen]
  axes = [HEADS, HEADS, HEADS, (*ROWS, None)]
  return sharding.map_shards(attend_part, arrays, axes, HEADS)


def find_block(length: int) -> int:
  """The size of tiles for rows of that length, which are filled up to whole tiles.

  Large tiles are worth an eighth more tokens, not more.
  """
  fitting = (block for block in BLOCKS if 8 * (-length % block) <= length)
  return next(fitting, BLOCKS[-1])


def _fill(x: Float[Array, "B L H d"], block: int) -> Float[jax.Array, "B H _ d"]:
  """Heads before tokens, as splash takes them, and whole tiles of tokens.

  Heads of any size are run: the TPU compiler fills up channels by itself.
  """
  filled = jnp.pad(x, ((0, 0), (0, -x.shape[1] % block), (0, 0), (0, 0)))
  return jnp.swapaxes(filled, 1, 2)


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


def _make_mask(length: int, heads: int, window: int | None, causal: bool):
  """What splash knows of who sees whom before it reads segments."""
  # Here, since most runs need none of it.
  from jax.experimental.pallas.ops.tpu import splash_attention

  shape = (length, length)
  mask: Any
  if window is not None:
    mask = splash_attention.LocalMask(shape, (window - 1, 0), offset=0)
  elif causal:
    mask = splash_attention.CausalMask(shape)
  else:
    mask = splash_attention.FullMask(shape)
  return splash_attention.MultiHeadMask([mask] * heads)


def _make_kernel(block: int, mask, residuals: bool):
  """Splash in tiles of that size; with residuals also the log-sum-exp.

  Args:
    block: tokens of a tile.
    mask: of splash, for all heads; or an array [1 L L], which all heads have.
    residuals: whether the log-sum-exp is given, too.
  """
  from jax.experimental.pallas.ops.tpu import splash_attention

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
    mask,
    block_sizes=sizes,
    head_shards=1,
    q_seq_shards=1,
    save_residuals=residuals,
    interpret=sharding.platform() == "cpu",
  )
