"""What a training step has to compute, counted from its batch."""

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from mllm_selector_jax.models import stack
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.decoder_config import (
  LINEAR,
  SHARING,
  WINDOW,
  DecoderConfig,
)
from mllm_selector_jax.types import Batch, Params

# What the last of few blocks does only where it is read (models/decoder_block.py).
_AFTER = ("out", "gate", "up", "gate_up", "down", "input_gate", "input_out")


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
    pair: of one patch that one patch sees in its image, in a tower of native
      resolution, whose images differ in size; in all layers that see the whole image.
    near_pair: of one that it sees in its window, in all layers that see windows.
  """

  token: float
  key: float
  target: float
  tile: float
  pair: float = 0.0
  near_pair: float = 0.0

  def flops(
    self, tokens: Any, keys: Any, targets: Any, tiles: Any, pairs: Any = (0, 0)
  ) -> Any:
    """Of so many of each; numbers or arrays of one shape.

    Args:
      tokens, keys, targets, tiles: as the attributes.
      pairs: of patches, in the same image and in the same window; see `count_pairs`.
    """
    images, windows = pairs
    return (
      self.token * tokens
      + self.key * keys
      + self.target * targets
      + self.tile * tiles
      + self.pair * images
      + self.near_pair * windows
    )


def make_rates(
  config: MllmConfig, params: Params, trained: Collection[str] | None
) -> Rates:
  """What a pass costs.

  A product with a weight takes two FLOPs a parameter forward, two for the gradient
  of its input and two for its own; attention takes four a visible key and channel
  forward, and twice that backward. A gradient that nothing needs does not count.
  The convention is PaLM's (Chowdhery et al. 2022, appendix B), but for attention,
  of which only what is causal and inside a sample counts. Linear attention takes three
  products with a head's state a token, however its loop over chunks computes them.

  Args:
    config: the model.
    params: its parameters, or their shapes.
    trained: names of the trained parts of `params`. The gradient is taken to flow back
      through the whole decoder, as that of the projector does, and through the whole
      tower if anything of it is trained. None: a forward pass alone.
  """
  decoder, vision = config.decoder, config.vision
  adapter = params.get("adapter", {})
  seen = trained is not None and ("vision" in trained or "vision" in adapter)
  # Forward, the inputs' gradients, the weights' gradients.
  both = 1 if trained is None else 2
  trained = trained or ()
  decoding = both + ("decoder" in trained)
  projecting = 1 + ("projector" in trained) + seen
  seeing = 3 if "vision" in trained else 1 + seen

  token, last = _split_layers(decoder, params["decoder"]["layers"])
  token += _count_weights(params["decoder"].get("layer_inputs", {}))
  token, last = 2 * decoding * token, 2 * decoding * last
  if "layers" in adapter:
    more, last_more = _split_layers(decoder, adapter["layers"])
    token += 2 * (2 * both - 1) * more
    last += 2 * (2 * both - 1) * last_more
  key, later = ((2 * both - 1) * 4 * width for width in _sum_widths(config))
  token += (2 * both - 1) * _count_states(decoder)
  target = 2 * decoding * decoder.width * decoder.vocab + last

  ran = config.vision_layers / vision.layers
  tower = ran * _count_weights(params["vision"]["layers"])
  # The kernels of all frames are summed first, for all patches at once.
  embedding = _count_weights(params["vision"]["patch_embedding"]) / vision.frames
  tower += embedding
  tile = 2 * seeing * tower * vision.positions
  tile += 2 * projecting * _count_weights(params["projector"]) * config.patches
  if "vision" in adapter:
    more = (2 * both - 1) * ran * _count_weights(adapter["vision"])
    # Nothing before the first layer is trained.
    tile += 2 * (more - (seeing - 1) * embedding) * vision.positions
  if "projector" in adapter:
    more = _count_adapted(params["projector"], adapter["projector"], both, seen)
    tile += 2 * more * config.patches
  # The later tokens that those of an image see: of n tokens (n^2 - n) / 2.
  tile -= later * config.patches / 2
  pair: float = (3 if seen else 1) * 4 * vision.width
  if not vision.native:
    tile += later * config.patches**2 / 2
    tile += pair * config.vision_layers * vision.positions**2
    pair = 0
  everywhere = len(vision.global_layers) if vision.window else vision.layers
  near_pair, pair = pair * (vision.layers - everywhere), pair * everywhere
  if vision.native:
    tokens = config.patches / vision.positions  # of a patch
    pair += later * tokens**2 / 2
  # numpy multiplies no column of 32 bits by as large an integer.
  return Rates(*map(float, (token, key, target, tile, pair, near_pair)))


def _sum_widths(config: MllmConfig) -> tuple[int, int]:
  """Channels of all heads, in all layers with attention.

  Returns:
    Their sum, and that of the layers where tokens of an image see later ones.
  """
  decoder = config.decoder
  kinds = [decoder.kind(layer) for layer in range(decoder.layers)]
  widths = {kind: decoder.of_kind(kind).head_dim * decoder.heads for kind in kinds}
  total = sum(widths[kind] for kind in kinds if kind != LINEAR)
  if not config.both_ways:
    return total, 0
  if not config.both_ways_in_windows:
    return total, total
  near = WINDOW, SHARING[WINDOW]
  return total, sum(widths[kind] for kind in kinds if kind in near)


def make_count(
  config: MllmConfig, params: Params, trained: Collection[str]
) -> Callable[[Batch], Work]:
  """A function from a batch on the host to its work; see `make_rates`."""
  rates = make_rates(config, params, trained)

  def count(batch: Batch) -> Work:
    real = np.asarray(batch.segments) > 0
    tokens = int(real.sum())
    keys = int(np.asarray(batch.positions, np.int64)[real].sum()) + tokens
    tiles, pairs = _count_tiles(batch, config.patches), (0, 0)
    if batch.places is not None:
      pairs = count_pairs(config, np.asarray(batch.places))
    targets = float(np.asarray(batch.weights).sum())
    return Work(tokens, real.size, rates.flops(tokens, keys, targets, tiles, pairs))

  return count


def count_pairs(
  config: MllmConfig, places: Int[np.ndarray, "W M 5"]
) -> tuple[int, int]:
  """Pairs of patches of one image, and of one window, that see one another.

  Args:
    positions, window: of a tower that reads images in their own sizes, as in
      `VisionConfig`.
    places: of a batch's tiles.
  """
  shards, tiles, _ = places.shape
  # Numbers of images count anew in every shard.
  first = np.arange(shards)[:, None] * (tiles + 1)
  image = np.where(places[..., 0] > 0, places[..., 0] + first, 0)
  keys = [image]
  if window := config.vision.window:
    keys += [places[..., 1] // window, places[..., 2] // window]

  def count(columns):
    flat = np.stack(columns, -1)[image > 0]
    _, sizes = np.unique(flat, axis=0, return_counts=True)
    return int(((sizes.astype(np.int64) * config.vision.positions) ** 2).sum())

  return count(keys[:1]), count(keys)


def estimate_pairs(
  positions: int, window: int, tiles: Any, images: Any
) -> tuple[Any, Any]:
  """What `count_pairs` counts, of images whose sizes are not known.

  They are taken to be equally large, and windows to be cut off nowhere.

  Args:
    positions, window: of a tower that reads images in their own sizes, as in
      `VisionConfig`.
    tiles: of all images; a number or an array.
    images: how many there are.
  """
  each = tiles / np.maximum(images, 1)
  near = np.minimum(each, window**2)
  return tuple(positions**2 * tiles * seen for seen in (each, near))


def _count_tiles(batch: Batch, patches: int) -> int:
  """Tiles of a batch that images fill: in each shard the first ones, in order."""
  if batch.places is not None:
    return int((np.asarray(batch.places)[..., 0] > 0).sum())
  shards, room = batch.images.shape[:2]
  used = np.asarray(batch.patches).reshape(shards, -1)
  last = np.where(used < room * patches, used, -1).max(axis=1, initial=-1)
  if batch.taps is not None:
    tapped = np.where(np.asarray(batch.tap_weights) > 0, np.asarray(batch.taps), -1)
    last = np.maximum(last, tapped.reshape(shards, -1).max(axis=1, initial=-1))
  return int((last // patches + 1).sum())


def _split_layers(config: DecoderConfig, layers: Params) -> tuple[float, float]:
  """Parameters that every token meets, and those that supervised ones alone do."""
  own, count = layers, config.layers
  if order := config.order:
    own, count = layers.get(order[-1], {}), order.count(order[-1])
  after = {name: own[name] for name in _AFTER if name in own}
  experts = _count_experts(config, layers.get("experts", {}))
  last = 0.0
  if stack.is_unrolled(config.layers):
    last = (_count_weights(after) + experts) / count
  return _count_weights(layers) + experts - last, last


def _count_experts(config: DecoderConfig, experts: Params) -> float:
  """Parameters of the router and of the experts that a token passes."""
  sizes = {name: math.prod(leaf.shape) for name, leaf in experts.items()}
  router = sizes.pop("router", 0)
  return router + sum(sizes.values()) * config.experts_per_token / (config.experts or 1)


def _count_states(config: DecoderConfig) -> int:
  """FLOPs a token, forward, of states and convolutions of linear attention."""
  linear = config.linear
  if linear is None:
    return 0
  convolution = 2 * linear.taps * (2 * linear.keys + linear.values)
  states = 6 * linear.values * linear.key_dim
  return len(config.linear_layers) * (convolution + states)


def _count_adapted(projector: Params, adapter: Params, both: int, seen: bool) -> float:
  """Products with a parameter that a projector's adapters ask for.

  The input of the first layer needs a gradient if the tower is trained, those of later
  ones need it anyway.
  """
  own = {name: layer for name, layer in adapter.items() if name != "layers"}
  cost: float = (2 * both - 1) * _count_weights(own)
  if both == 2 and not seen:
    first = next(name for name in ("narrow", "first", "second") if name in own)
    cost -= math.prod(own[first]["lora_a"].shape)
    cost += sum(_count_weights(projector[name]) for name in own if name != first)
  if "layers" in adapter:
    cost += _count_adapted(projector["layers"], adapter["layers"], both, seen)
  return cost


def _count_weights(tree: Params) -> int:
  """Parameters of linear layers, without their biases."""
  return sum(
    math.prod(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if path[-1].key in ("kernel", "lora_a", "lora_b")
  )
