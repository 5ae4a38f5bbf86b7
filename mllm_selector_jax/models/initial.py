"""Random parameters to start a model from nothing.

Drawn with numpy, array by array from the seed and the array's place: nothing is
compiled, and the same seed gives the same bytes whatever the device or the
version of jax.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mllm_selector_jax import types
from mllm_selector_jax.models.axes import path_name
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.decoder_config import split_kind
from mllm_selector_jax.models.vision_config import BOUND_NAMES

EMBEDDING_SCALE = 0.02  # of embeddings and of the head
# How fast heads of linear attention forget, as Qwen3.5 begins.
LEAST_FORGOTTEN, MOST_FORGOTTEN = np.float32(0.01), np.float32(16)


def _draw(
  path: str, shape: tuple[int, ...], config: MllmConfig, rng: np.random.Generator
) -> np.ndarray:
  tower, _, rest = split_kind(path)[0].partition("/")
  kind = rest.rpartition("/")[2]
  offset = {
    "decoder": config.decoder.norm_offset,
    "projector": config.projector_norm == "offset_rms_norm",
  }
  if kind == "scale" and offset.get(tower):
    return np.zeros(shape, np.float32)
  if kind == "forget_bias" or kind == "scale" or kind.endswith("_scale"):
    return np.ones(shape, np.float32)
  if kind in ("bias", "standard_bias", "lora_b"):
    return np.zeros(shape, np.float32)
  if kind in BOUND_NAMES:  # which clip nothing
    return np.full(shape, -np.inf if kind.endswith("min") else np.inf, np.float32)
  if kind == "forget_log":
    return np.log(LEAST_FORGOTTEN + rng.random(shape, np.float32) * MOST_FORGOTTEN)
  if kind == "lora_a":
    bound = np.float32(1 / math.sqrt(shape[-2]))
    return (2 * rng.random(shape, np.float32) - 1) * bound
  scale = EMBEDDING_SCALE
  kinds = ("kernel", "convolution")
  if kind in kinds or rest.startswith("layers/experts/"):
    scale = 1 / math.sqrt(shape[-2])
  if kind == "newline":
    scale = 1 / math.sqrt(shape[-1])  # as LLaVA-NeXT begins with it
  if rest in ("layers/out/kernel", "layers/down/kernel", "layers/experts/down"):
    # What is added to the residual stream starts small, the more layers the
    # smaller, so that a fresh tower of any depth begins near the identity.
    layers = config.vision.layers if tower == "vision" else config.decoder.layers
    scale /= math.sqrt(2 * layers)
  return rng.standard_normal(shape, np.float32) * np.float32(scale)


def draw_params(abstract: types.Params, config: MllmConfig, seed: int) -> types.Params:
  """Random arrays of the given shapes; the same seed gives the same ones.

  Kernels are normal with variance 1 / inputs, embeddings and the head with a
  deviation of 0.02, a newline with one of 1 / sqrt(width), norms and layer scales the
  identity, biases 0, and bounds so wide that nothing is clipped. Each head of linear
  attention forgets at a rate of its own. Of an adapter's matrices the first is uniform
  within 1 / sqrt(inputs), the second 0.
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(abstract)
  arrays = [
    jnp.asarray(
      _draw(path_name(path), leaf.shape, config, np.random.default_rng([seed, place]))
    )
    for place, (path, leaf) in enumerate(leaves)
  ]
  return jax.tree.unflatten(structure, arrays)
