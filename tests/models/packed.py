"""Small models and packed rows for the tests of the model."""

import dataclasses

import jax
import numpy as np

from mllm_selector_jax import types
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.decoder_config import (
  DecoderConfig,
  FullConfig,
  LayerInputs,
  LinearConfig,
)
from mllm_selector_jax.models.rope import Rope
from mllm_selector_jax.models.vision_config import BOUND_NAMES, VisionConfig

VISION = VisionConfig(width=16, mlp=24, layers=2, heads=2, image_size=16, patch_size=8)
DECODER = DecoderConfig(
  vocab=40, width=16, mlp=24, layers=2, heads=4, kv_heads=2, head_dim=4
)
CONFIG = MllmConfig(VISION, DECODER, image_token=4)

# A tower of native resolution that has all that such towers may have.
NATIVE = dataclasses.replace(
  CONFIG,
  vision=dataclasses.replace(
    VISION,
    layers=3,
    class_token=False,
    pre_norm=False,
    post_norm=False,
    patch_bias=True,
    native=True,
    gated=True,
    frames=2,
    position_side=5,
    window=2,
    global_layers=(1,),
    names="qwen3_vl",
    fused=True,
  ),
  decoder=dataclasses.replace(DECODER, layers=3, rope=Rope(sections=(1, 1, 0))),
  feature_layer=-1,
  select="full",
  merge=2,
  patch_norm="layer_norm",
  projector_width=64,
  deepstack=(1, 3),
)
# As GLM-4.1V, whose projector ends with a gated MLP.
GATED = dataclasses.replace(
  NATIVE,
  vision=dataclasses.replace(
    NATIVE.vision,
    window=0,
    global_layers=(),
    bicubic=True,
    pre_norm=True,
    post_norm=True,
  ),
  decoder=dataclasses.replace(
    NATIVE.decoder,
    rope=Rope(sections=(0, 1, 0), share=0.5, neighbours=True),
    fused=("gate_up",),
  ),
  feature_norm=True,
  deepstack=(),
  patch_norm=None,
  projector_gated=True,
  projector_width=40,
)

# A decoder with layers of linear attention: two periods, and the beginning of a third.
LINEAR = dataclasses.replace(
  CONFIG,
  decoder=dataclasses.replace(
    DECODER,
    layers=8,
    linear=LinearConfig(key_heads=2, value_heads=4, key_dim=16, value_dim=12, taps=4),
    linear_layers=(0, 1, 3, 4, 6, 7),
    output_gate=True,
    norm_offset=True,
    epsilon=1e-2,
    rope=Rope(share=0.5),
    names="qwen3_5",
  ),
)

# As Gemma 4: layers of two kinds with heads of two widths, and capped logits.
GEMMA4 = dataclasses.replace(
  CONFIG,
  vision=dataclasses.replace(
    VISION,
    image_size=24,
    activation="gelu_pytorch_tanh",
    class_token=False,
    pre_norm=False,
    post_norm=False,
    qkv_bias=False,
    norm="rms_norm",
    native=True,
    gated=True,
    bias=False,
    theta=100.0,
    halves=True,
    post_norms=True,
    patch_linear=True,
    position_table=9,
    standardized=True,
    names="gemma4",
  ),
  decoder=dataclasses.replace(
    DECODER,
    layers=3,
    rope=Rope(1e6, "proportional", share=0.5),
    qk_norm=True,
    value_norm=True,
    window=5,
    full_layers=(2,),
    full=FullConfig(1, 8, 8**0.5, keys_as_values=True),
    window_rope=Rope(),
    query_scale=2.0,
    logit_cap=3.0,
    layer_scale=True,
    post_norms=True,
    names="gemma4",
  ),
  feature_layer=-1,
  select="full",
  merge=3,
  pools=True,
  projector_norm="bare_rms_norm",
  projector_bias=False,
  projector_layers=1,
  both_ways=True,
  both_ways_in_windows=True,
  names="gemma4",
)

# As Gemma 4 E2B: of nine layers the last four read the keys and values of two others.
SHARING = dataclasses.replace(
  GEMMA4,
  vision=dataclasses.replace(GEMMA4.vision, standardized=False, clipped=True),
  decoder=dataclasses.replace(
    GEMMA4.decoder,
    layers=9,
    full_layers=(1, 3, 6, 8),
    full=FullConfig(2, 8, 8**0.5, keys_as_values=False),
    layer_inputs=LayerInputs(6, 40, padding=3),
    sharing=4,
    sharing_mlp=48,
    epsilon=1e-2,
  ),
  both_ways=False,
)


def make_config(**changes) -> MllmConfig:
  """`CONFIG` with changes; decoder fields as decoder_..., vision's as vision_...."""
  parts = {"vision": {}, "decoder": {}, "": {}}
  for key, value in changes.items():
    part, _, field = key.partition("_")
    if part in ("vision", "decoder"):
      parts[part][field] = value
    else:
      parts[""][key] = value
  return dataclasses.replace(
    CONFIG,
    vision=dataclasses.replace(VISION, **parts["vision"]),
    decoder=dataclasses.replace(DECODER, **parts["decoder"]),
    **parts[""],
  )


def random_params(config: MllmConfig, seed: int = 0) -> types.Params:
  """Parameters none of which is at a special value, with logits of order 1."""
  rng = np.random.default_rng(seed)

  def draw(path, x):
    if path[-1].key in BOUND_NAMES:  # which would clip nothing
      x = np.full(x.shape, -1 if "min" in path[-1].key else 1, np.float32)
    return x + rng.normal(scale=0.1, size=x.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(draw, mllm.init(config, seed))


def random_sample(
  config: MllmConfig, rng: np.random.Generator, length: int, image: bool
) -> tuple[np.ndarray, np.ndarray | None]:
  """`length` text tokens, around the patches of one image if there is one."""
  text = rng.integers(5, config.decoder.vocab, length)
  if not image:
    return text, None
  side = config.vision.image_size
  tokens = np.insert(text, [1] * config.patches, config.image_token)
  return tokens, rng.integers(0, 256, (side, side, 3), dtype=np.uint8)


def find_pixels(tiles: tuple[np.ndarray, ...]) -> np.ndarray | None:
  """The pixels of an example's only image, of one tile; None without an image."""
  if not tiles:
    return None
  ((pixels,),) = tiles
  return pixels


def pack(config: MllmConfig, rows: list[list], length: int) -> types.Batch:
  """Packs samples (tokens, pixels or None) one after the other into rows."""
  side, many = config.vision.image_size, max(1, *map(len, rows))
  tokens, positions, segments = np.zeros((3, len(rows), length), np.int32)
  patches = np.full((len(rows), length), -1, np.int32)
  images = np.zeros((len(rows), many, side, side, 3), np.uint8)
  for row, samples in enumerate(rows):
    start = image = 0
    for place, (ids, pixels) in enumerate(samples):
      here = slice(start, start + len(ids))
      tokens[row, here] = ids
      positions[row, here] = np.arange(len(ids))
      segments[row, here] = 1 + place
      if pixels is not None:
        where = start + np.flatnonzero(ids == config.image_token)
        patches[row, where] = image * config.patches + np.arange(config.patches)
        images[row, image] = pixels
        image += 1
      start += len(ids)
    assert start <= length, (start, length)
  none = np.zeros((len(rows), 1), np.int32)
  return types.Batch(
    tokens, positions, segments, patches, images, none, none, none.astype(float), none
  )


def trace_hidden_states(
  config: MllmConfig, length: int, tiles: int
) -> jax.ShapeDtypeStruct:
  """The shape of the hidden states of two full rows with so many tiles each.

  Nothing is computed, so that a model may have its published size.
  """

  def array(dtype, *shape):
    return jax.ShapeDtypeStruct(shape, dtype)

  row, few, tiling = array("int32", 2, length), array("int32", 2, 64), config.tiling
  batch = types.Batch(
    tokens=row,
    positions=row,
    segments=row,
    patches=row,
    images=array("uint8", 2, tiles, tiling.side, tiling.side, 3),
    predict=few,
    targets=few,
    weights=array("float32", 2, 64),
    answers=few,
    places=array("int32", 2, tiles, 5) if tiling.native else None,
    axes=array("int32", 2, length, 3) if tiling.axes else None,
  )
  return jax.eval_shape(
    lambda params, batch: mllm.hidden_states(config, params, batch),
    mllm.abstract(config),
    batch,
  )
