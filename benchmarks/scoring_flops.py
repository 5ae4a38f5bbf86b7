"""Floating-point operations of scoring, as executed, padding included."""

import dataclasses

from mllm_selector_jax.models.config import MllmConfig


@dataclasses.dataclass
class Work:
  """What a run executed.

  Attributes:
    tokens: that went through the decoder, padding included.
    pairs: of query and key that attention multiplied, a layer a head.
    images: that went through the vision tower.
    heads: positions whose logits were computed.
    last: positions that went through all of the last block; the others gave it
      their keys and values only.
  """

  tokens: int = 0
  pairs: float = 0
  images: int = 0
  heads: int = 0
  last: int = 0

  def __add__(self, other: "Work") -> "Work":
    mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
    return Work(*(a + b for a, b in zip(mine, theirs, strict=True)))


def count_parts(config: MllmConfig, work: Work) -> dict[str, float]:
  """FLOPs of each part of the forward passes; a multiply-add is two."""
  decoder, vision = config.decoder, config.vision
  heads = decoder.heads * decoder.head_dim
  kv_heads = decoder.kv_heads * decoder.head_dim
  before = decoder.width * (heads + 2 * kv_heads)  # query, key and value
  after = decoder.width * (heads + 3 * decoder.mlp)
  blocks = before * decoder.layers + after * (decoder.layers - 1)
  places, width = vision.positions, vision.width
  layer = places * width * (4 * width + 2 * vision.mlp) + 2 * places**2 * width
  patch = places * 3 * vision.patch_size**2 * width
  projector = config.patches * decoder.width * (config.projected_width + decoder.width)
  return {
    "matmuls": 2.0 * (blocks * work.tokens + after * work.last),
    "attention": 4.0 * decoder.layers * heads * work.pairs,
    "vision": 2.0 * work.images * (patch + config.vision_layers * layer + projector),
    "head": 2.0 * decoder.width * decoder.vocab * work.heads,
  }


def count_flops(config: MllmConfig, work: Work) -> float:
  """FLOPs of the forward passes; a multiply-add is two."""
  return sum(count_parts(config, work).values())
