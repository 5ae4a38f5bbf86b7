"""The multimodal model as pure functions over one dict of parameters.

Flax NNX modules say what the parameters are and what is computed with them.
They are split once, here; everything jitted elsewhere is a plain function of
`params`, {"vision": ..., "projector": ..., "decoder": ...}, whose leaves are
float32 and whose repeated layers lie on a leading axis. A config with `lora` adds
"adapter", kept apart from the parts that it changes.
"""

import contextlib
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int, UInt8

from mllm_selector_jax import sharding, types
from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import cache, initial, lora
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.decoder import Decoder
from mllm_selector_jax.models.gated_projector import GatedProjector
from mllm_selector_jax.models.image_numbers import number_images
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.models.native_tower import NativeTower
from mllm_selector_jax.models.projector import Projector
from mllm_selector_jax.models.vision import VisionTower


class Mllm(nnx.Module):
  """Vision tower, projector and decoder."""

  def __init__(self, config: MllmConfig, rngs: nnx.Rngs):
    self.vision: VisionTower | NativeTower
    if config.vision.native:
      self.vision = NativeTower(config, rngs)
    else:
      self.vision = VisionTower(config, rngs)
    kind = GatedProjector if config.projector_gated else Projector
    self.projector: Projector | GatedProjector = kind(config, rngs)
    self.decoder = Decoder(config, rngs)


@functools.lru_cache(maxsize=16)
def _split(config: MllmConfig):
  return nnx.split(nnx.eval_shape(lambda: Mllm(config, nnx.Rngs(0))))


def _merge(config: MllmConfig, params: types.Params) -> Mllm:
  if config.lora is not None:
    params = lora.attach(params)
  return nnx.merge(_split(config)[0], params)


def precision(config: MllmConfig) -> contextlib.AbstractContextManager:
  """The context of the model's matmuls; everything here runs in it."""
  # Accelerators otherwise multiply float32 matrices with fewer bits, and the
  # losses that come of it are sorted.
  if config.dtype != "bfloat16":
    return jax.default_matmul_precision("highest")
  return contextlib.nullcontext()


def abstract(config: MllmConfig) -> types.Params:
  """The parameters' shapes: the tree of `init` with ShapeDtypeStruct leaves."""
  params = nnx.to_pure_dict(_split(config)[1])
  return params if config.lora is None else lora.detach(params)


def init(config: MllmConfig, seed: int) -> types.Params:
  """Random parameters; the same seed gives the same ones."""
  return initial.draw_params(abstract(config), config, seed)


def add_adapter(
  config: MllmConfig, params: types.Params, adapter: LoraConfig, seed: int
) -> tuple[MllmConfig, types.Params]:
  """The model with a fresh LoRA adapter, which changes nothing yet."""
  config = dataclasses.replace(config, lora=adapter)
  shapes = {"adapter": abstract(config)["adapter"]}
  return config, {**params, **initial.draw_params(shapes, config, seed)}


class Embedded(NamedTuple):
  """What enters the decoder.

  Attributes:
    x: token embeddings, and the features of images, in the computation's dtype.
    added: to what leaves the first layers, one part to one layer; 0 where there is
      text. None: nothing (`MllmConfig.deepstack`).
    images: as `number_images` gives them.
    inputs: what each layer is given besides. None: nothing
      (`DecoderConfig.layer_inputs`).
  """

  x: Float[Array, "B L D"]
  added: Float[Array, "deep B L D"] | None = None
  images: Int[Array, "B L"] | None = None
  inputs: Float[Array, "layers B L w"] | None = None


def embed(
  config: MllmConfig,
  params: types.Params,
  tokens: Int[Array, "B L"],
  patches: Int[Array, "B L"],
  images: UInt8[Array, "W M S S 3"],
  taps: Int[Array, "W K 4"] | None = None,
  tap_weights: Float[Array, "W K 4"] | None = None,
  places: Int[Array, "W M 5"] | None = None,
) -> Embedded:
  """What enters the decoder: token embeddings, and the features of images.

  Args:
    config: the model.
    params: its parameters.
    tokens: token ids; ignored where `patches` is not negative.
    patches: which of its shard's features stands here, -1 for text. Features are
      those of the tiles, M * P; the newline, if the model has one; and those that
      are interpolated, K.
    images: tiles of each shard of B / W rows; M may be 0.
    taps: the four features of tiles that an interpolated one is a sum of; None where
      nothing is interpolated.
    tap_weights: and their weights in this sum.
    places: where tiles lie in which image; see `types.Batch`. None where tiles are
      images of their own.
  """
  axes = ("batch", "length", "width")
  with precision(config):
    model = _merge(config, params)
    x = model.decoder.embed(tokens)

    def give(x):
      if config.decoder.layer_inputs is None:
        return None
      inputs = model.decoder.layer_inputs(tokens, patches >= 0, x)
      return sharding.constrain(inputs, (None, "batch", "length", None))

    if not images.shape[1]:
      x = sharding.constrain(x, axes)
      return Embedded(x, inputs=give(x))
    features, further = _see(config, model, images, places)
    features = _extend_features(config, params, features, taps, tap_weights)
    if config.decoder.scales_features and config.decoder.embedding_scale is not None:
      features = features * config.decoder.embedding_scale

    def pick(features, elsewhere):
      index = jnp.clip(patches, 0, features.shape[1] - 1).reshape(len(images), -1, 1)
      picked = jnp.take_along_axis(features, index, axis=1, mode="clip")
      return jnp.where(patches[..., None] >= 0, picked.reshape(x.shape), elsewhere)

    added = None
    if further is not None:
      added = jnp.stack([pick(part, 0) for part in further])
      added = sharding.constrain(added, (None, *axes))
    x = sharding.constrain(pick(features, x), axes)
    return Embedded(x, added, number_images(config, patches, places), give(x))


def _see(
  config: MllmConfig,
  model: Mllm,
  images: UInt8[Array, "W M S S 3"],
  places: Int[Array, "W M 5"] | None,
) -> tuple[Float[jax.Array, "W n D"], Float[jax.Array, "deep W n D"] | None]:
  """The features of each shard's tiles, and those of `MllmConfig.deepstack`."""
  shards, count = images.shape[:2]
  table = (shards, count * config.patches, config.decoder.width)
  if isinstance(model.vision, VisionTower):
    x = model.vision(images.reshape(shards * count, *images.shape[2:]))
    return model.projector(x).reshape(table), None
  assert places is not None, "tiles of an image have a place in it"
  x, states = model.vision(images, places)
  by_tile = (shards * count, config.vision.positions, config.vision.width)
  features = model.projector(x.reshape(by_tile)).reshape(table)
  if not config.deepstack:
    return features, None
  assert isinstance(model.projector, Projector), "it has mergers of further states"
  further = model.projector.project_states(states.reshape(len(states), *by_tile))
  return features, further.reshape(len(further), *table)


def _extend_features(
  config: MllmConfig,
  params: types.Params,
  features: Float[Array, "W n D"],
  taps: Int[Array, "W K 4"] | None,
  tap_weights: Float[Array, "W K 4"] | None,
) -> Float[jax.Array, "W _ D"]:
  """The features of tiles, then the newline and the interpolated features."""
  extended = [jnp.asarray(features)]
  shards, _, width = features.shape
  if config.newline:
    newline = params["projector"]["newline"].astype(features.dtype)
    extended.append(jnp.broadcast_to(newline, (shards, 1, width)))
  if taps is not None:
    assert tap_weights is not None, "taps have weights"
    index = taps.reshape(shards, -1, 1)
    picked = jnp.take_along_axis(features, index, axis=1, mode="clip")
    picked = picked.reshape(*taps.shape, width).astype(tap_weights.dtype)
    interpolated = (picked * tap_weights[..., None]).sum(axis=2)
    extended.append(interpolated.astype(features.dtype))
  return jnp.concatenate(extended, axis=1) if len(extended) > 1 else extended[0]


def decode(
  config: MllmConfig,
  params: types.Params,
  embeddings: Embedded,
  positions: Int[Array, "B L"],
  segments: Int[Array, "B L"],
  prefixes: Int[Array, "B L"] | None = None,
  at: Int[Array, "W n"] | None = None,
  axes: Int[Array, "B L 3"] | None = None,
) -> Float[Array, "..."]:
  """Decoder blocks and final norm over packed rows.

  Args:
    config: the model.
    params: its parameters.
    embeddings: what `embed` gave.
    positions: the position inside its sample, from 0.
    segments: tokens see earlier tokens of the same number only,
    prefixes: and of this one, their trunk; below 1 for none.
    at: positions that are wanted, counted through the B / W rows of a shard; all.
    axes: positions in time, row and column by which rotary embeddings turn; None:
      `positions`.

  Returns:
    What the head multiplies, [B L D]; with `at`, [W n D].
  """
  with precision(config):
    decoder = _merge(config, params).decoder
    x, *rest = embeddings
    return decoder(x, positions, segments, prefixes, at, axes, *rest)


def read(
  config: MllmConfig,
  params: types.Params,
  embeddings: Embedded,
  lengths: Int[Array, " B"],
  axes: Int[Array, "B L 3"] | None = None,
) -> tuple[Float[Array, "B D"], cache.Layers]:
  """Decoder and final norm over prompts, one a row, padded on the right.

  Args:
    config: the model.
    params: its parameters.
    embeddings: what `embed` gave for the prompts.
    lengths: tokens of each.
    axes: positions in time, row and column; None: the place in the prompt.

  Returns:
    What the head multiplies, of each prompt's last token, and the prompts' keys and
    values.
  """
  with precision(config):
    x, *rest = embeddings
    return _merge(config, params).decoder.read(x, lengths, axes, *rest)


def extend(
  config: MllmConfig,
  params: types.Params,
  embeddings: Embedded,
  lengths: Int[Array, " B"],
  step: Int[Array, ""],
  prompt: cache.Layers,
  answer: cache.Layers,
  following: Int[Array, " B"] | None = None,
) -> tuple[Float[Array, "B D"], cache.Layers]:
  """Decoder and final norm over one more token of each row.

  Args:
    config: the model.
    params: its parameters.
    embeddings: what `embed` gave for the tokens.
    lengths: tokens of each prompt.
    step: how many tokens were generated before these ones.
    prompt: what `read` kept.
    answer: `cache.make_answer`, as this function gave it at the last step.
    following: the position by which the first generated token of each row turns; None:
      the prompt's length.

  Returns:
    What the head multiplies, and the answers with these tokens among them.
  """
  with precision(config):
    decoder = _merge(config, params).decoder
    x, inputs, caches = embeddings.x, embeddings.inputs, (prompt, answer)
    return decoder.extend(x, lengths, step, *caches, following, inputs)


def hidden_states(
  config: MllmConfig,
  params: types.Params,
  batch: types.Batch,
  at: Int[Array, "W n"] | None = None,
) -> Float[Array, "..."]:
  """The final hidden states of a batch of packed rows [B L D]; see `decode`.

  Asked for few positions only [W n D], a model of a few layers does not run the
  last one's MLP for the others: a fifth of the work of four layers.
  """
  x = embed(
    config,
    params,
    batch.tokens,
    batch.patches,
    batch.images,
    batch.taps,
    batch.tap_weights,
    batch.places,
  )
  return decode(
    config,
    params,
    x,
    batch.positions,
    batch.segments,
    batch.prefixes,
    at,
    batch.axes,
  )


def head(config: MllmConfig, params: types.Params) -> Float[Array, "D V"]:
  """The matrix from hidden states to logits."""
  if config.decoder.tied:
    return params["decoder"]["token_embedding"].T
  return params["decoder"]["head"]
