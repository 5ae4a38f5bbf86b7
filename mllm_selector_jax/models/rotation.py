"""Turns the channels of queries and keys by their positions' angles."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models.rope import Rope


def rotation_angles(
  positions: Int[Array, "B L *axes"], head_dim: int, rope: Rope, dtype=jnp.float32
) -> tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]]:
  """Cosine and sine of each position's angles, h = head_dim / 2.

  Args:
    positions: of each token; with a last axis, those in time, row and column, of which
      `rope.sections` says which channels turn by which.
    head_dim: channels of a head.
    rope: the wavelengths.
    dtype: of the angles.
  """
  frequencies = jnp.asarray(rope.frequencies(head_dim), dtype)
  if positions.ndim == 2:
    turns = positions.astype(dtype)[..., None]
  else:
    turns = positions.astype(dtype)[..., rope.channel_axes(head_dim)]
  angles = turns * frequencies[None, None]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  if rope.scale != 1.0:
    cos, sin = cos * rope.scale, sin * rope.scale
  return cos[:, :, None], sin[:, :, None]


def rotate(
  x: Float[Array, "B L H d"],
  cos: Float[Array, "B L 1 h"],
  sin: Float[Array, "B L 1 h"],
) -> Float[jax.Array, "B L H d"]:
  """Turns the pairs (i, i + d/2) by their angles (RoFormer, Llama's pairing)."""
  left, right = jnp.split(x.astype(cos.dtype), 2, axis=-1)
  turned = jnp.concatenate(
    [left * cos - right * sin, right * cos + left * sin], axis=-1
  )
  return turned.astype(x.dtype)
