"""The decoder: from embeddings to final hidden states, and the head."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import attention, cache, stack
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.decoder_block import (
  Block,
  DecoderBlock,
  LinearBlock,
  SharingBlock,
  gather_positions,
  make_rms_norm,
)
from mllm_selector_jax.models.decoder_config import (
  FULL,
  LINEAR,
  SHARED_KINDS,
  WINDOW,
)
from mllm_selector_jax.models.layer_inputs import InputTable
from mllm_selector_jax.models.layer_views import Views, make_views
from mllm_selector_jax.models.linear_attention import trace
from mllm_selector_jax.models.lora import find_adapter
from mllm_selector_jax.models.rotation import rotation_angles

# By `DecoderConfig.kind`.
BLOCKS: dict[str, type[Block]] = {
  "": DecoderBlock,
  FULL: DecoderBlock,
  WINDOW: DecoderBlock,
  LINEAR: LinearBlock,
  **dict.fromkeys(SHARED_KINDS, SharingBlock),
}


def add_part(
  x: Float[Array, "..."],
  added: Float[Array, "deep B L D"] | None,
  number: int | Array,
  at: Int[Array, "W n"] | None = None,
) -> Float[Array, "..."]:
  """A layer's output with what is added to it.

  Args:
    x: the output [B L D]; with `at`, at these positions alone [W n D].
    added: to the first layers, one part to one layer; None for nothing.
    number: of the layer, which may be traced.
    at: positions, counted through the rows of a shard.
  """
  if added is None:
    return x
  part = added[jnp.minimum(number, len(added) - 1)]
  if at is not None:
    part = gather_positions(part, at)
  return x + jnp.where(number < len(added), part, 0).astype(x.dtype)


def pick_inputs(
  inputs: Float[Array, "layers B L w"] | None, number: int | Array
) -> dict[str, Array]:
  """What a layer is given besides what the layer before it gives, if anything is."""
  return {} if inputs is None else {"inputs": inputs[number]}


def link_images(
  config: MllmConfig, layout: attention.Layout, images: Int[Array, "B L"] | None
) -> attention.Layout:
  """The layout in which tokens of one image see one another, if they do so in it.

  Args:
    config: of the model.
    layout: of layers that see all tokens, or of layers with a window.
    images: as `image_numbers.number_images` gives them.
  """
  if layout.window is None and config.both_ways_in_windows:
    return layout
  length = None if config.vision.native else config.patches
  return layout._replace(images=images, image_length=length)


class Decoder(nnx.Module):
  """Token embeddings, blocks, final norm and, unless tied, the head."""

  def __init__(self, config: MllmConfig, rngs: nnx.Rngs):
    decoder = config.decoder
    dtype = jnp.dtype(config.dtype)
    lora = find_adapter(config, "decoder")
    self.config = config
    self.token_embedding = nnx.Param(jnp.zeros((decoder.vocab, decoder.width)))
    kinds = {
      kind: functools.partial(block, kind, decoder, lora, dtype)
      for kind, block in BLOCKS.items()
    }
    if decoder.order:
      self.layers = stack.Mixed(kinds, decoder.order, rngs)
    else:
      self.layers = stack.make_layers(kinds[""], decoder.layers, rngs)
    self.norm = make_rms_norm(decoder, decoder.width, dtype, rngs)
    if decoder.layer_inputs is not None:
      self.layer_inputs = InputTable(decoder, dtype, rngs)
    if not decoder.tied:
      self.head = nnx.Param(jnp.zeros((decoder.width, decoder.vocab)))

  def embed(self, tokens: Int[Array, "B L"]) -> Float[jax.Array, "B L D"]:
    """The tokens' embeddings; ids outside the vocabulary are clipped."""
    embeddings = jnp.take(self.token_embedding[...], tokens, axis=0, mode="clip")
    embeddings = embeddings.astype(jnp.dtype(self.config.dtype))
    scale = self.config.decoder.embedding_scale
    return embeddings if scale is None else embeddings * scale

  def __call__(
    self,
    x: Float[Array, "B L D"],
    positions: Int[Array, "B L"],
    segments: Int[Array, "B L"],
    prefixes: Int[Array, "B L"] | None = None,
    at: Int[Array, "W n"] | None = None,
    axes: Int[Array, "B L 3"] | None = None,
    added: Float[Array, "deep B L D"] | None = None,
    images: Int[Array, "B L"] | None = None,
    inputs: Float[Array, "layers B L w"] | None = None,
  ) -> Float[Array, "..."]:
    """Hidden states [B L D], or with `at` those of these positions [W n D].

    With `added`, its first part is added to what leaves the first layer, and so on.
    With `images`, tokens of one image see one another in both directions. With
    `inputs`, each layer is given a part of them.
    """
    config = self.config.decoder
    remat = self.config.remat

    def see(window):
      layout = attention.Layout(segments, positions, prefixes, window)
      return attention.make_attend(
        self.config.attention, link_images(self.config, layout, images)
      )

    views = self._make_views(positions if axes is None else axes, x.dtype, see)
    if config.linear is not None:
      views = views._replace(linear=(trace(segments, prefixes),))

    def call(layer, x, number):
      own = pick_inputs(inputs, number)
      return add_part(layer(x, *views.pick(number, layer.kind), **own), added, number)

    start = 0
    if config.sharing:
      x, found = self._find_shared(x, call, views)
      views, start = views._replace(shared=found), config.owners
    if at is None or not stack.is_unrolled(config.layers):
      x, _ = stack.run_numbered(self.layers, x, call, start=start, remat=remat)
      return self._leave(x if at is None else gather_positions(x, at))
    # What the last block adds elsewhere would be read by nobody.
    most = config.layers - 1
    x, _ = stack.run_numbered(self.layers, x, call, start=start, stop=most, remat=remat)
    view, own = views.pick(most, config.kind(most)), pick_inputs(inputs, most)
    x = stack.run_layer(self.layers, most, x, *view, remat=remat, at=at, **own)
    return self._leave(add_part(x, added, most, at))

  def _find_shared(self, x, call, views: Views) -> tuple[jax.Array, dict[str, Any]]:
    """What leaves the last layer with keys and values, and attention to the last ones.

    These are computed twice, from what entered their layers, which is far less to hold
    than all keys and values of a loop.
    """
    sources = self.config.decoder.sources
    before = [number - 1 for number in sources.values()]
    found: dict[str, Any] = {}
    first = jnp.asarray(x)
    x, states = stack.run_numbered(
      self.layers,
      first,
      call,
      kept=before,
      stop=self.config.decoder.owners,
      remat=self.config.remat,
    )
    for (kind, number), state in zip(sources.items(), states, strict=True):
      layer = stack.pick_layer(self.layers, number)
      assert isinstance(layer, DecoderBlock), "it has keys and values"
      cos, sin, attend = views.find(number, SHARED_KINDS[kind])
      key, value = layer.find_keys(state if number else first, cos, sin)
      found[kind] = lambda query, a=attend, k=key, v=value: a(query, k, v)
    return x, found

  def read(
    self,
    x: Float[Array, "B L D"],
    lengths: Int[Array, " B"],
    axes: Int[Array, "B L 3"] | None = None,
    added: Float[Array, "deep B L D"] | None = None,
    images: Int[Array, "B L"] | None = None,
    inputs: Float[Array, "layers B L w"] | None = None,
  ) -> tuple[Float[Array, "B D"], Any]:
    """Reads prompts from their beginning; see `mllm.read`."""
    config = self.config.decoder
    rows, length, _ = x.shape
    positions = jnp.broadcast_to(jnp.arange(length)[None], (rows, length))
    segments = (positions < lengths[:, None]).astype(jnp.int32)

    def see(window):
      layout = attention.Layout(segments, positions, None, window)
      return attention.make_attend("xla", link_images(self.config, layout, images))

    views = self._make_views(positions if axes is None else axes, x.dtype, see)
    if config.linear is not None:
      lineage = trace(jnp.ones_like(segments), None, segments > 0)
      views = views._replace(linear=(lineage, lengths))
    at = jnp.maximum(lengths - 1, 0)[:, None]
    pruned = stack.is_unrolled(config.owners)

    def call(layer, x, _, number, last):
      only = at if last and pruned else None
      own = pick_inputs(inputs, number)
      x, cache = layer.read(x, *views.pick(number, layer.kind), only, **own)
      return add_part(x, added, number, only), cache

    x, kept = stack.run_keeping(self.layers, x, call, stop=config.owners)
    if not pruned:
      x = gather_positions(x, at)
    if config.sharing:
      # The last token alone goes on: later layers read keys and values, and keep none.
      last = (
        None if inputs is None else jax.vmap(gather_positions, (0, None))(inputs, at)
      )
      empty, before = cache.make_answer(kept, 1), jnp.int32(-1)
      x = self._share(x, at, lengths, before, cache.pair(kept, empty), last)
    return self._leave(x)[:, 0], kept

  def extend(
    self,
    x: Float[Array, "B 1 D"],
    lengths: Int[Array, " B"],
    step: Int[Array, ""],
    prompt: Any,
    answer: Any,
    following: Int[Array, " B"] | None = None,
    inputs: Float[Array, "layers B 1 w"] | None = None,
  ) -> tuple[Float[Array, "B D"], Any]:
    """Reads one more token of each row; see `mllm.extend`."""
    config = self.config.decoder
    positions = ((lengths if following is None else following) + step)[:, None]
    past = cache.pair(prompt, answer)
    views = self._make_answer_views(positions, lengths, step, past, x.dtype)

    def call(layer, x, past, number, _):
      own = pick_inputs(inputs, number)
      return layer.extend(x, *views.pick(number, layer.kind), step, past, **own)

    x, answer = stack.run_keeping(self.layers, x, call, past, config.owners)
    if config.sharing:
      past = cache.pair(prompt, answer)
      x = self._share(x, positions, lengths, step, past, inputs)
    return self._leave(x)[:, 0], answer

  def _share(
    self,
    x: Float[Array, "B 1 D"],
    positions: Int[Array, "B 1"],
    lengths: Int[Array, " B"],
    step: Int[Array, ""],
    past: Any,
    inputs: Float[Array, "layers B 1 w"] | None,
  ) -> Float[jax.Array, "B 1 D"]:
    """One token of each row in the layers that read keys and values of earlier ones.

    Args:
      x: what leaves the last layer that has its own.
      positions: of the tokens.
      lengths, step: as in `cache.make_bias`.
      past: keys and values of the layers that have their own, those of the token, too.
      inputs: of all layers.
    """
    config = self.config.decoder
    views = self._make_answer_views(positions, lengths, step, past, x.dtype)
    shared = {}
    for kind, number in config.sources.items():
      own = SHARED_KINDS[kind]
      kept = stack.pick_kept(past, self.layers, number, config.owners)
      shared[kind] = cache.make_attend(kept, views.find(number, own).seen)
    views = views._replace(shared=shared)

    def call(layer, x, number):
      own = pick_inputs(inputs, number)
      return layer(x, *views.pick(number, layer.kind), **own)

    return stack.run_numbered(self.layers, x, call, start=config.owners)[0]

  def _make_answer_views(self, positions, lengths, step, past, dtype) -> Views:
    """What each layer sees of the places of prompts and of answers."""

    def see(window):
      return cache.make_bias(lengths, step, *cache.places(past), window)

    return self._make_views(positions, dtype, see)

  def _leave(self, x: Float[Array, "..."]) -> jax.Array:
    """What the head multiplies."""
    normed = self.norm(jnp.asarray(x))
    scale = self.config.decoder.output_scale
    return normed if scale == 1.0 else normed * scale

  def _make_views(self, positions, dtype, see) -> Views:
    """What each layer sees, and its cosines and sines in float32 or better."""
    config = self.config.decoder
    wide = jnp.promote_types(dtype, jnp.float32)

    def rotation(rope, head_dim):
      return rotation_angles(positions, head_dim, rope, wide)

    return make_views(config, rotation, see)
