"""From the vision tower's features to token embeddings: merging and projecting."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mllm_selector_jax.models import stack
from mllm_selector_jax.models.activations import ACTIVATION_FNS
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.lora import find_adapter, make_linear
from mllm_selector_jax.models.norms import make_norm


def merge_patches(
  features: Float[jax.Array, "N P W"], side: int
) -> Float[jax.Array, "N P2 W2"]:
  """Joins the channels of each square block of `side` x `side` features.

  Both a block's features and the blocks are in order row by row.
  """
  count, places, width = features.shape
  grid = round(places**0.5)
  blocks = grid // side
  cut = features.reshape(count, blocks, side, blocks, side, width)
  cut = cut.transpose(0, 1, 3, 2, 4, 5)
  return cut.reshape(count, blocks * blocks, side * side * width)


def pool_patches(
  features: Float[jax.Array, "N P W"], side: int
) -> Float[jax.Array, "N P2 W"]:
  """The mean of each square block of `side` x `side` features, in their order."""
  count, _, width = features.shape
  blocks = merge_patches(features, side).reshape(count, -1, side * side, width)
  wide = jnp.promote_types(features.dtype, jnp.float32)
  return blocks.mean(axis=2, dtype=wide).astype(features.dtype)


class Merger(nnx.Module):
  """Linear, activation, linear on merged patches, after a norm or without one.

  With `MllmConfig.projector_layers` 1, the first linear layer alone.
  """

  def __init__(self, config: MllmConfig, norm: str | None, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    joined, width = config.projected_width, config.decoder.width
    single = config.projector_layers == 1
    inner = width if single else config.projector_width or width
    self.activation = config.projector_activation
    if norm is not None:
      self.norm = make_norm(norm, joined, config.projector_epsilon, dtype, rngs)
    lora = find_adapter(config, "projector")
    kind = {"use_bias": config.projector_bias, "dtype": dtype, "rngs": rngs}
    self.first = make_linear(joined, inner, lora, **kind)
    if not single:
      self.second = make_linear(inner, width, lora, **kind)

  def __call__(self, features: Float[jax.Array, "n W"]) -> Float[jax.Array, "n D"]:
    if hasattr(self, "norm"):
      features = self.norm(features)
    hidden = self.first(features)
    if not hasattr(self, "second"):
      return hidden
    return self.second(ACTIVATION_FNS[self.activation](hidden))


class Projector(Merger):
  """Merges the patches of a tile and projects them.

  It also holds the norm that patches pass before they are merged, the layer that makes
  merged ones as narrow as one patch, the vector that ends a row of features, and the
  mergers of further states, where the model has them.
  """

  def __init__(self, config: MllmConfig, rngs: nnx.Rngs):
    super().__init__(config, config.projector_norm, rngs)
    dtype = jnp.dtype(config.dtype)
    self.merge, self.pools = config.merge, config.pools
    if config.patch_norm is not None:
      self.patch_norm = make_norm(
        config.patch_norm, config.vision.width, config.projector_epsilon, dtype, rngs
      )
    if config.narrows:
      width = config.vision.width
      kind = {"use_bias": False, "dtype": dtype, "rngs": rngs}
      lora = find_adapter(config, "projector")
      self.narrow = make_linear(config.merged_width, width, lora, **kind)
    if config.newline:
      self.newline = nnx.Param(jnp.zeros(config.decoder.width))
    if config.deepstack:
      # By this name it is known everywhere that they lie on a leading axis.
      self.layers = stack.make_layers(
        lambda rngs: Merger(config, "layer_norm", rngs), len(config.deepstack), rngs
      )

  def __call__(self, features: Float[jax.Array, "N P W"]) -> Float[jax.Array, "N P2 D"]:
    if hasattr(self, "patch_norm"):
      features = self.patch_norm(features)
    merged = self._merge_patches(features)
    flat = merged.reshape(-1, merged.shape[-1])
    if hasattr(self, "narrow"):
      flat = self.narrow(flat)
    return super().__call__(flat).reshape(*merged.shape[:2], -1)

  def project_states(
    self, states: Float[jax.Array, "n N P W"]
  ) -> Float[jax.Array, "n N P2 D"]:
    """Merges and projects further states, each by a merger of its own."""
    graph, arrays = nnx.split(self.layers)

    def project(arrays, state):
      merged = self._merge_patches(state)
      projected = nnx.merge(graph, arrays)(merged.reshape(-1, merged.shape[-1]))
      return projected.reshape(*merged.shape[:2], -1)

    return jax.vmap(project)(arrays, states)

  def _merge_patches(
    self, features: Float[jax.Array, "N P W"]
  ) -> Float[jax.Array, "N P2 W2"]:
    if self.merge == 1:
      return features
    return (pool_patches if self.pools else merge_patches)(features, self.merge)
