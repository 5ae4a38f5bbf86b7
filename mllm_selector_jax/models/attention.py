"""Attention: which token sees which, and the weighted sum."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def make_mask(segments: Int[Array, "B L"]) -> Bool[Array, "B 1 L L"]:
  """True where a query (row) sees a key (column): earlier, of its own segment.

  Padding is a segment of its own, so every query sees at least itself.
  """
  length = segments.shape[1]
  place = jnp.arange(length)
  causal = place[None, :, None] >= place[None, None, :]
  same = segments[:, :, None] == segments[:, None, :]
  return (same & causal)[:, None]


def attend_masked(
  query: Float[Array, "B L H d"],
  key: Float[Array, "B L Hkv d"],
  value: Float[Array, "B L Hkv d"],
  mask: Bool[Array, "B 1 L L"] | None,
) -> Float[Array, "B L H d"]:
  """Attention with a float32 softmax; query heads share key-value heads evenly."""
  return jax.nn.dot_product_attention(
    query, key, value, mask=mask, implementation="xla"
  )


def attend(
  query: Float[Array, "B L H d"],
  key: Float[Array, "B L Hkv d"],
  value: Float[Array, "B L Hkv d"],
  segments: Int[Array, "B L"],
) -> Float[Array, "B L H d"]:
  """Attention that is causal inside each segment and blind to the others."""
  return attend_masked(query, key, value, make_mask(segments))
