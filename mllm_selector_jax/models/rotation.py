"""Turns the channels of queries and keys by their positions' angles."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models.rope import Rope


def rotation_angles(
  positions: Int[Array, "B L *axes"], head_dim: int, rope: Rope, dtype=jnp.float32
) -> tuple[Float[Array, "B L 1 h"], Float[Array, "B L 1 h"]]:
  """Cosine and sine of each position's angles, h half of the channels that turn.

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
  neighbours: bool = False,
) -> Float[jax.Array, "B L H d"]:
  """Turns the first 2 h channels, in pairs, by their angles (RoFormer).

  Args:
    x: queries or keys.
    cos, sin: of the angles of the h pairs.
    neighbours: whether pairs are (2 i, 2 i + 1); otherwise (i, i + h), as Llama's.
  """
  pairs = cos.shape[-1]
  wide = jnp.asarray(x).astype(cos.dtype)
  wide, rest = wide[..., : 2 * pairs], wide[..., 2 * pairs :]
  if neighbours:
    left, right = wide[..., ::2], wide[..., 1::2]
  else:
    left, right = jnp.split(wide, 2, axis=-1)
  turned = left * cos - right * sin, right * cos + left * sin
  if neighbours:
    joined = jnp.stack(turned, axis=-1).reshape(wide.shape)
  else:
    joined = jnp.concatenate(turned, axis=-1)
  if rest.shape[-1]:
    joined = jnp.concatenate([joined, rest], axis=-1)
  return joined.astype(x.dtype)
