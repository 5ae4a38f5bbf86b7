"""Which image of its row a token is of, where tokens of one image see one another."""

import jax
import jax.numpy as jnp
from jaxtyping import Int

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models.config import MllmConfig


def number_images(
  config: MllmConfig,
  patches: Int[Array, "B L"],
  places: Int[Array, "W M 5"] | None = None,
) -> Int[jax.Array, "B L"] | None:
  """The number of the image that a token is of, counted in its row from 1; 0 for text.

  Args:
    config: the model.
    patches: see `mllm.embed`. An image begins with the first feature of its first tile.
    places: of tiles; see `types.Batch`. None: an image is one tile.

  Returns:
    None where tokens of an image see no later ones (`MllmConfig.both_ways`).
  """
  if not config.both_ways:
    return None
  seen = patches >= 0
  begins = seen & (patches % config.patches == 0)
  if places is not None and places.shape[1]:
    first = (jnp.asarray(places)[..., 1:3] == 0).all(-1)
    tiles = jnp.clip(patches // config.patches, 0).reshape(len(places), -1)
    picked = jnp.take_along_axis(first, tiles, axis=1, mode="clip")
    begins &= picked.reshape(patches.shape)
  return jnp.where(seen, jnp.cumsum(begins, axis=1, dtype=jnp.int32), 0)
