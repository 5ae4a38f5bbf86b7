"""What a training step has to compute, counted from its batch."""

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import numpy as np

from mllm_selector_jax.models import stack
from mllm_selector_jax.models.config import DecoderConfig, MllmConfig
from mllm_selector_jax.types import Batch, Params

# What the last of few blocks does only where it is read (models/decoder.py).
_AFTER = ("out", "gate", "up", "down")


class Work(NamedTuple):
  """What one batch asks for.

  Attributes:
    tokens: real ones, features of images included.
    places: tokens and padding.
    flops: of forward and backward pass over what is real; what is recomputed, and
      padding, do not count.
  """

  tokens: int
  places: int
  flops: float


class Rates(NamedTuple):
  """FLOPs of each thing that a pass over samples has to do.

  Attributes:
    token: of one real token, features of images included.
    key: of one key that one token sees.
    target: of one supervised position.
    tile: of one tile of an image.
  """

  token: float
  key: float
  target: float
  tile: float

  def flops(self, tokens: Any, keys: Any, targets: Any, tiles: Any) -> Any:
    """Of so many of each; numbers or arrays of one shape."""
    return (
      self.token * tokens + self.key * keys + self.target * targets + self.tile * tiles
    )


def make_rates(
  config: MllmConfig, params: Params, trained: Collection[str] | None
) -> Rates:
  """What a pass costs.

  A product with a weight takes two FLOPs a parameter forward, two for the gradient
  of its input and two for its own; attention takes four a visible key and channel
  forward, and twice that backward. A gradient that nothing needs does not count.
  The convention is PaLM's (Chowdhery et al. 2022, appendix B), but for attention,
  of which only what is causal and inside a sample counts.

  Args:
    config: the model.
    params: its parameters, or their shapes.
    trained: names of the trained parts of `params`, the projector among them: its
      gradient flows back through the whole decoder. None: a forward pass alone.
  """
  decoder, vision = config.decoder, config.vision
  # Forward, the inputs' gradients, the weights' gradients.
  both = 1 if trained is None else 2
  trained = trained or ()
  decoding = both + ("decoder" in trained)
  projecting = both + ("vision" in trained)
  seeing = 3 if "vision" in trained else 1

  token, last = _split_layers(decoder, params["decoder"]["layers"])
  token, last = 2 * decoding * token, 2 * decoding * last
  if "adapter" in params:
    more, last_more = _split_layers(decoder, params["adapter"]["layers"])
    token += 2 * (2 * both - 1) * more
    last += 2 * (2 * both - 1) * last_more
  key = (2 * both - 1) * 4 * decoder.layers * decoder.heads * decoder.head_dim
  target = 2 * decoding * decoder.width * decoder.vocab + last

  ran = config.vision_layers / vision.layers
  tower = ran * _count_weights(params["vision"]["layers"])
  tower += _count_weights(params["vision"]["patch_embedding"])
  tile = 2 * seeing * tower * vision.positions
  tile += seeing * 4 * config.vision_layers * vision.width * vision.positions**2
  tile += 2 * projecting * _count_weights(params["projector"]) * config.patches
  return Rates(token, key, target, tile)


def make_count(
  config: MllmConfig, params: Params, trained: Collection[str]
) -> Callable[[Batch], Work]:
  """A function from a batch on the host to its work; see `make_rates`."""
  rates = make_rates(config, params, trained)

  def count(batch: Batch) -> Work:
    real = np.asarray(batch.segments) > 0
    tokens = int(real.sum())
    keys = int(np.asarray(batch.positions, np.int64)[real].sum()) + tokens
    tiles = _count_tiles(batch, config.patches)
    targets = float(np.asarray(batch.weights).sum())
    return Work(tokens, real.size, rates.flops(tokens, keys, targets, tiles))

  return count


def _count_tiles(batch: Batch, patches: int) -> int:
  """Tiles of a batch that images fill: in each shard the first ones, in order."""
  shards, room = batch.images.shape[:2]
  used = np.asarray(batch.patches).reshape(shards, -1)
  last = np.where(used < room * patches, used, -1).max(axis=1, initial=-1)
  if batch.taps is not None:
    tapped = np.where(np.asarray(batch.tap_weights) > 0, np.asarray(batch.taps), -1)
    last = np.maximum(last, tapped.reshape(shards, -1).max(axis=1, initial=-1))
  return int((last // patches + 1).sum())


def _split_layers(config: DecoderConfig, layers: Params) -> tuple[float, float]:
  """Parameters that every token meets, and those that supervised ones alone do."""
  few = stack.is_unrolled(config.layers)
  after = {name: layers[name] for name in _AFTER if name in layers}
  last = _count_weights(after) / config.layers if few else 0
  return _count_weights(layers) - last, last


def _count_weights(tree: Params) -> int:
  """Parameters of linear layers, without their biases."""
  return sum(
    math.prod(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if path[-1].key in ("kernel", "lora_a", "lora_b")
  )
