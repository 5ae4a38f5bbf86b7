"""Keys and values of earlier tokens, kept so that a new token is read alone."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.models.attention import UNSEEN
from mllm_selector_jax.models.config import MllmConfig

AXES = ("layers", "batch", "length", "kv_heads", None)


class Cache(NamedTuple):
  """Rotated keys, and values, of the places 0 to T - 1 of every layer."""

  keys: Float[Array, "layers B T Hkv d"]
  values: Float[Array, "layers B T Hkv d"]


def make_cache(config: MllmConfig, rows: int, length: int) -> Cache:
  """An empty cache of that many rows and places, in the computation's dtype."""
  decoder = config.decoder
  shape = (decoder.layers, rows, length, decoder.kv_heads, decoder.head_dim)
  empty = sharding.constrain(jnp.zeros(shape, jnp.dtype(config.dtype)), AXES)
  return Cache(empty, empty)


def write(
  layer: Cache,
  key: Float[Array, "B n Hkv d"],
  value: Float[Array, "B n Hkv d"],
  positions: Int[Array, "B n"],
) -> Cache:
  """One layer's cache with the tokens' keys and values at their positions.

  Positions beyond the cache are dropped.
  """
  rows = jnp.arange(len(positions))[:, None]
  return Cache(
    layer.keys.at[rows, positions].set(key, mode="drop"),
    layer.values.at[rows, positions].set(value, mode="drop"),
  )


def make_bias(
  positions: Int[Array, "B n"], length: int, window: int | None = None
) -> Float[Array, "B 1 1 n T"]:
  """0 where a token sees a place of the cache, its own or an earlier one.

  Args:
    positions: of the tokens.
    length: places of the cache, T.
    window: places that a token sees, its own included; None is all.
  """
  distance = positions[:, :, None] - jnp.arange(length)[None, None]
  seen = distance >= 0
  if window is not None:
    seen &= distance < window
  return jnp.where(seen, 0.0, UNSEEN).astype(jnp.float32)[:, None, None]
