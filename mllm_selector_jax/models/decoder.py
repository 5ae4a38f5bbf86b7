"""The decoder: from embeddings to final hidden states, and the head."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import attention, cache, stack
from mllm_selector_jax.models.activations import ACTIVATION_FNS
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.decoder_config import FULL, LINEAR, DecoderConfig
from mllm_selector_jax.models.layer_views import Views, make_views
from mllm_selector_jax.models.linear_attention import DeltaMixer, Lineage, trace
from mllm_selector_jax.models.lora import find_adapter, make_linear
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.models.norms import OffsetRMSNorm
from mllm_selector_jax.models.rotation import rotate, rotation_angles


def gather_positions(
  hidden: Float[Array, "B L D"], at: Int[Array, "W n"]
) -> Float[Array, "W n D"]:
  """The hidden states at the given positions of each shard of rows.

  Args:
    hidden: of packed rows.
    at: positions counted through the B / W rows of a shard, end to end.
  """
  shards = hidden.reshape(len(at), -1, hidden.shape[-1])
  return jnp.take_along_axis(shards, at[..., None], axis=1)


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


def make_rms_norm(
  config: DecoderConfig, width: int, dtype, rngs: nnx.Rngs
) -> nnx.RMSNorm:
  """An RMS norm of the decoder's kind over so many channels."""
  kind = OffsetRMSNorm if config.norm_offset else nnx.RMSNorm
  return kind(width, epsilon=config.epsilon, dtype=dtype, rngs=rngs)


class DecoderBlock(nnx.Module):
  """Grouped-query attention, then a gated MLP, each after an RMS norm.

  Gemma has another norm after each of them.
  """

  linear = False

  def __init__(
    self, config: DecoderConfig, lora: LoraConfig | None, dtype, rngs: nnx.Rngs
  ):
    width, mlp = config.width, config.mlp
    self.config = config

    def linear(inputs, outputs, bias=False):
      kind = {"use_bias": bias, "dtype": dtype, "rngs": rngs}
      return make_linear(inputs, outputs, lora, **kind)

    def norm(size=width):
      return make_rms_norm(config, size, dtype, rngs)

    self.attention_norm = norm()
    if config.post_norms:
      self.attention_post_norm, self.mlp_post_norm = norm(), norm()
    self._make_attention(linear, norm, lora, dtype, rngs)
    self.mlp_norm = norm()
    self.gate = linear(width, mlp)
    self.up = linear(width, mlp)
    self.down = linear(mlp, width)

  def _make_attention(self, linear, norm, *_) -> None:
    config, width = self.config, self.config.width
    heads = config.heads * config.head_dim
    if config.qk_norm:
      self.query_norm = norm(config.head_dim)
      self.key_norm = norm(config.head_dim)
    self.query = linear(width, heads * (1 + config.output_gate), config.qkv_bias)
    self.key = linear(width, config.kv_heads * config.head_dim, config.qkv_bias)
    self.value = linear(width, config.kv_heads * config.head_dim, config.qkv_bias)
    self.out = linear(heads, width, config.out_bias)

  def __call__(
    self,
    x: Float[Array, "B L D"],
    cos: Float[Array, "B L 1 h"],
    sin: Float[Array, "B L 1 h"],
    attend: attention.Attend,
    at: Int[Array, "W n"] | None = None,
  ) -> Float[Array, "..."]:
    """The block's output [B L D].

    With `at`, the output at these positions alone [W n D]: all are attended to, but
    only theirs go on. Positions are counted through the B / W rows of a shard.
    """
    query, key, value, gate = self._project(x, cos, sin)
    return self._finish(x, _open(attend(query, key, value), gate), at)

  def read(
    self, x: Float[Array, "B L D"], cos, sin, attend: attention.Attend, at=None
  ) -> tuple[Float[Array, "..."], cache.Cache]:
    """The same, and the keys and values to be kept."""
    query, key, value, gate = self._project(x, cos, sin)
    mixed = _open(attend(query, key, value), gate)
    return self._finish(x, mixed, at), cache.lay_out(key, value)

  def extend(
    self, x: Float[Array, "B 1 D"], cos, sin, bias, step, past: cache.Past
  ) -> tuple[Float[Array, "B 1 D"], cache.Cache]:
    """The output for one more token, and the layer's answers with it."""
    query, key, value, gate = self._project(x, cos, sin)
    past = past._replace(answer=cache.write(past.answer, key, value, step))
    mixed = _open(cache.make_attend(past, bias)(query), gate)
    return self._finish(x, mixed), past.answer

  def _project(self, x, cos, sin) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    """Query and key, rotated; the value; the gate of what is attended to, or None."""
    config = self.config
    batch, length, width = x.shape
    # Two-dimensional matmuls: XLA on CPU runs them faster than batched ones.
    normed = self.attention_norm(x.reshape(-1, width))
    query, gate = self.query(normed).reshape(batch, length, config.heads, -1), None
    if config.output_gate:
      query, gate = jnp.split(query, 2, axis=-1)
    key = self.key(normed).reshape(batch, length, config.kv_heads, config.head_dim)
    value = self.value(normed).reshape(key.shape)
    if config.qk_norm:
      query, key = self.query_norm(query), self.key_norm(key)
    if config.query_scale != 1.0:
      query = query * config.query_scale
    return rotate(query, cos, sin), rotate(key, cos, sin), value, gate

  def _finish(self, x, mixed, at=None) -> Float[Array, "..."]:
    """What follows the attention, of all positions or of those in `at`."""
    batch, length, width = x.shape
    shape, flat = x.shape, x.reshape(-1, width)
    mixed = mixed.reshape(batch * length, -1)
    if at is not None:
      shape = (*at.shape, width)
      flat = gather_positions(x, at).reshape(-1, width)
      mixed = gather_positions(mixed.reshape(batch, length, -1), at)
      mixed = mixed.reshape(len(flat), -1)
    added = self.out(mixed)
    if self.config.post_norms:
      added = self.attention_post_norm(added)
    flat = flat + added
    normed = self.mlp_norm(flat)
    gate = ACTIVATION_FNS[self.config.activation](self.gate(normed))
    added = self.down(gate * self.up(normed))
    if self.config.post_norms:
      added = self.mlp_post_norm(added)
    return (flat + added).reshape(shape)


def _open(mixed: jax.Array, gate: jax.Array | None) -> jax.Array:
  """What is attended to, through its gate."""
  return mixed if gate is None else mixed * jax.nn.sigmoid(gate)


class LinearBlock(DecoderBlock):
  """The same with linear attention."""

  linear = True

  def _make_attention(self, linear, norm, *rest) -> None:
    config = self.config
    assert config.linear is not None, "these layers have sizes of their own"
    self.mixer = DeltaMixer(config.linear, config.width, config.epsilon, *rest)
    self.out = linear(config.linear.values, config.width)

  def __call__(self, x, lineage: Lineage, at=None) -> Float[Array, "..."]:
    return self._finish(x, self.mixer(self.attention_norm(x), lineage), at)

  def read(self, x, lineage: Lineage, lengths, at=None):
    """The same, and the state to be kept."""
    mixed, state = self.mixer.read(self.attention_norm(x), lineage, lengths)
    return self._finish(x, mixed, at), state

  def extend(self, x, step, past: cache.State):
    """The output for one more token, and the state after it."""
    mixed, state = self.mixer.extend(self.attention_norm(x), past)
    return self._finish(x, mixed), state


class Decoder(nnx.Module):
  """Token embeddings, blocks, final norm and, unless tied, the head."""

  def __init__(self, config: MllmConfig, rngs: nnx.Rngs):
    decoder = config.decoder
    dtype = jnp.dtype(config.dtype)
    lora = find_adapter(config, "decoder")
    self.config = config
    self.token_embedding = nnx.Param(jnp.zeros((decoder.vocab, decoder.width)))
    kinds = {
      kind: functools.partial(block, decoder, lora, dtype)
      for kind, block in ((FULL, DecoderBlock), (LINEAR, LinearBlock))
    }
    if decoder.order:
      self.layers = stack.Mixed(kinds, decoder.order, rngs)
    else:
      self.layers = stack.make_layers(kinds[FULL], decoder.layers, rngs)
    self.norm = make_rms_norm(decoder, decoder.width, dtype, rngs)
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
  ) -> Float[Array, "..."]:
    """Hidden states [B L D], or with `at` those of these positions [W n D].

    With `added`, its first part is added to what leaves the first layer, and so on.
    """
    config = self.config.decoder
    remat = self.config.remat

    def see(window):
      layout = attention.Layout(segments, positions, prefixes, window)
      return attention.make_attend(self.config.attention, layout)

    views = self._make_views(positions if axes is None else axes, x.dtype, see)
    if config.linear is not None:
      views = views._replace(linear=(trace(segments, prefixes),))

    def call(layer, x, number):
      return add_part(layer(x, *views.pick(number, layer.linear)), added, number)

    if at is None or not stack.is_unrolled(config.layers):
      x, _ = stack.run_numbered(self.layers, x, call, remat=remat)
      return self.norm(x if at is None else gather_positions(x, at))
    # What the last block adds elsewhere would be read by nobody.
    most = config.layers - 1
    x, _ = stack.run_numbered(self.layers, x, call, stop=most, remat=remat)
    view = views.pick(most, most in config.linear_layers)
    x = stack.run_layer(self.layers, most, x, *view, remat=remat, at=at)
    return self.norm(add_part(x, added, most, at))

  def read(
    self,
    x: Float[Array, "B L D"],
    lengths: Int[Array, " B"],
    axes: Int[Array, "B L 3"] | None = None,
    added: Float[Array, "deep B L D"] | None = None,
  ) -> tuple[Float[Array, "B D"], Any]:
    """Reads prompts from their beginning; see `mllm.read`."""
    config = self.config.decoder
    rows, length, _ = x.shape
    positions = jnp.broadcast_to(jnp.arange(length)[None], (rows, length))
    segments = (positions < lengths[:, None]).astype(jnp.int32)

    def see(window):
      layout = attention.Layout(segments, positions, None, window)
      return attention.make_attend("xla", layout)

    views = self._make_views(positions if axes is None else axes, x.dtype, see)
    if config.linear is not None:
      lineage = trace(jnp.ones_like(segments), None, segments > 0)
      views = views._replace(linear=(lineage, lengths))
    at = jnp.maximum(lengths - 1, 0)[:, None]
    pruned = stack.is_unrolled(config.layers)

    def call(layer, x, _, number, last):
      only = at if last and pruned else None
      x, cache = layer.read(x, *views.pick(number, layer.linear), only)
      return add_part(x, added, number, only), cache

    x, kept = stack.run_keeping(self.layers, x, call)
    if not pruned:
      x = gather_positions(x, at)
    return self.norm(x)[:, 0], kept

  def extend(
    self,
    x: Float[Array, "B 1 D"],
    lengths: Int[Array, " B"],
    step: Int[Array, ""],
    prompt: Any,
    answer: Any,
    following: Int[Array, " B"] | None = None,
  ) -> tuple[Float[Array, "B D"], Any]:
    """Reads one more token of each row; see `mllm.extend`."""
    positions = ((lengths if following is None else following) + step)[:, None]

    def see(window):
      places = cache.places(prompt), cache.places(answer)
      return cache.make_bias(lengths, step, *places, window)

    views = self._make_views(positions, x.dtype, see)

    def call(layer, x, past, number, _):
      return layer.extend(x, *views.pick(number, layer.linear), step, past)

    past = cache.pair(prompt, answer)
    x, answer = stack.run_keeping(self.layers, x, call, past)
    return self.norm(x)[:, 0], answer

  def _make_views(self, positions, dtype, see) -> Views:
    """What each layer sees, and its cosines and sines in float32 or better."""
    config = self.config.decoder
    wide = jnp.promote_types(dtype, jnp.float32)

    def rotation(rope):
      return rotation_angles(positions, config.head_dim, rope, wide)

    return make_views(config, rotation, see)
