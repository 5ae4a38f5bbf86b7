"""The layers of decoders: attention or linear attention, then a gated MLP."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import attention, cache
from mllm_selector_jax.models.activations import ACTIVATION_FNS
from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.experts import Experts
from mllm_selector_jax.models.linear_attention import DeltaMixer, Lineage
from mllm_selector_jax.models.lora import (
  SHARED,
  apply_layers,
  make_linear,
  share_adapter,
)
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.models.norms import OffsetRMSNorm, make_norm
from mllm_selector_jax.models.rotation import rotate


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


def make_rms_norm(
  config: DecoderConfig, width: int, dtype, rngs: nnx.Rngs
) -> nnx.RMSNorm:
  """An RMS norm of the decoder's kind over so many channels."""
  kind = OffsetRMSNorm if config.norm_offset else nnx.RMSNorm
  return kind(width, epsilon=config.epsilon, dtype=dtype, rngs=rngs)


class Block(nnx.Module):
  """What kinds of layers share: after the attention a gated MLP or several; norms.

  Gemma has another norm after each of the two. Some of Gemma 4 have a third part, which
  lets through what the layer is given of each token besides.
  """

  # What a kind of layers has of its own: a method that makes all that comes between the
  # first norm and `_finish`, and the matrix after the attention.
  _make_attention: Callable[..., None]
  out: Any

  def __init__(
    self,
    kind: str,
    config: DecoderConfig,
    lora: LoraConfig | None,
    dtype,
    rngs: nnx.Rngs,
  ):
    config = config.of_kind(kind)
    width, mlp = config.width, config.mlp
    self.kind, self.config = kind, config
    sharing = {layer for name in config.fused for layer in SHARED[name]}

    def linear(name, inputs, outputs, bias=False):
      own = None if name in sharing else lora
      kind = {"use_bias": bias, "dtype": dtype, "rngs": rngs}
      return make_linear(inputs, outputs, own, **kind)

    def norm(size=width):
      return make_rms_norm(config, size, dtype, rngs)

    self.attention_norm = norm()
    if config.post_norms:
      self.attention_post_norm, self.mlp_post_norm = norm(), norm()
    self._make_attention(linear, norm, lora, dtype, rngs)
    self.mlp_norm = norm()
    if config.experts:
      self.experts = Experts(config, dtype, rngs)
    else:
      self.gate = linear("gate", width, mlp)
      self.up = linear("up", width, mlp)
      self.down = linear("down", mlp, width)
    if inputs := config.layer_inputs:
      self.input_gate = linear("input_gate", width, inputs.width)
      self.input_out = linear("input_out", inputs.width, width)
      self.input_post_norm = norm()
    for name in config.fused:
      share_adapter(self, name, lora, dtype)
    if config.layer_scale:
      self.layer_scale = nnx.Param(jnp.ones(1))

  def _finish(self, x, mixed, at=None, inputs=None) -> Float[Array, "..."]:
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
    flat = self._add(flat, added)
    added = self._feed(self.mlp_norm(flat))
    if self.config.post_norms:
      added = self.mlp_post_norm(added)
    flat = self._add(flat, added)
    if inputs is not None:
      if at is not None:
        inputs = gather_positions(inputs, at)
      flat = self._add(flat, self._let_in(flat, inputs.reshape(len(flat), -1)))
    if self.config.layer_scale:
      # A constant of the checkpoint, which is never trained.
      scale = jax.lax.stop_gradient(self.layer_scale[...])
      flat = flat * scale.astype(flat.dtype)[None]
    return flat.reshape(shape)

  def _add(self, x: jax.Array, added: jax.Array) -> jax.Array:
    scale = self.config.residual_scale
    return x + (added if scale == 1.0 else added * scale)

  def _let_in(
    self, flat: Float[Array, "n D"], inputs: Float[Array, "n w"]
  ) -> Float[jax.Array, "n D"]:
    """What the layer is given of each token, through its gate."""
    gate = ACTIVATION_FNS[self.config.activation](self.input_gate(flat))
    return self.input_post_norm(self.input_out(gate * inputs.astype(gate.dtype)))

  def _feed(self, normed: Float[Array, "n D"]) -> Float[Array, "n D"]:
    """What the MLP, or the experts in its place, give."""
    if self.config.experts:
      return self.experts(normed)
    gate, up = apply_layers(self, "gate_up", normed)
    return self.down(ACTIVATION_FNS[self.config.activation](gate) * up)


def _open(mixed: Array, gate: Array | None) -> Array:
  """What is attended to, through its gate."""
  return mixed if gate is None else mixed * jax.nn.sigmoid(gate)


class DecoderBlock(Block):
  """Grouped-query attention."""

  def _make_attention(self, linear, norm, _, dtype, rngs) -> None:
    config, width = self.config, self.config.width
    heads, kv_heads = (n * config.head_dim for n in (config.heads, config.kv_heads))
    if config.qk_norm:
      self.query_norm = norm(config.head_dim)
      self.key_norm = norm(config.head_dim)
    gates = 1 + config.output_gate
    self.query = linear("query", width, heads * gates, config.qkv_bias)
    self.key = linear("key", width, kv_heads, config.qkv_bias)
    if not config.keys_as_values:
      self.value = linear("value", width, kv_heads, config.qkv_bias)
    if config.value_norm:
      kind = {"epsilon": config.epsilon, "dtype": dtype, "rngs": rngs}
      self.value_norm = make_norm("bare_rms_norm", config.head_dim, **kind)
    self.out = linear("out", heads, width, config.out_bias)

  def __call__(
    self,
    x: Float[Array, "B L D"],
    cos: Float[Array, "B L 1 h"],
    sin: Float[Array, "B L 1 h"],
    attend: attention.Attend,
    at: Int[Array, "W n"] | None = None,
    inputs: Float[Array, "B L w"] | None = None,
  ) -> Float[Array, "..."]:
    """The block's output [B L D].

    With `at`, the output at these positions alone [W n D]: all are attended to, but
    only theirs go on. Positions are counted through the B / W rows of a shard. `inputs`
    are those of this layer (`DecoderConfig.layer_inputs`).
    """
    query, key, value, gate = self._project(x, cos, sin)
    return self._finish(x, _open(attend(query, key, value), gate), at, inputs)

  def read(
    self,
    x: Float[Array, "B L D"],
    cos,
    sin,
    attend: attention.Attend,
    at=None,
    inputs=None,
  ) -> tuple[Float[Array, "..."], cache.Cache]:
    """The same, and the keys and values to be kept."""
    query, key, value, gate = self._project(x, cos, sin)
    mixed = _open(attend(query, key, value), gate)
    return self._finish(x, mixed, at, inputs), cache.lay_out(key, value)

  def extend(
    self, x: Float[Array, "B 1 D"], cos, sin, bias, step, past: cache.Past, inputs=None
  ) -> tuple[Float[Array, "B 1 D"], cache.Cache]:
    """The output for one more token, and the layer's answers with it."""
    query, key, value, gate = self._project(x, cos, sin)
    past = past._replace(answer=cache.write(past.answer, key, value, step))
    mixed = _open(cache.make_attend(past, bias)(query), gate)
    return self._finish(x, mixed, None, inputs), past.answer

  def find_keys(
    self, x: Float[Array, "B L D"], cos, sin
  ) -> tuple[Float[jax.Array, "B L Hkv d"], Float[jax.Array, "B L Hkv d"]]:
    """The rotated keys, and the values, of what enters the layer."""
    _, key, value, _ = self._project(x, cos, sin)
    return key, value

  def _project(self, x, cos, sin) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    """Query and key, rotated; the value; the gate of what is attended to, or None."""
    config = self.config
    batch, length, width = x.shape
    # Two-dimensional matmuls: XLA on CPU runs them faster than batched ones.
    normed = self.attention_norm(x.reshape(-1, width))
    layers = apply_layers(self, "qkv", normed)
    if config.keys_as_values:
      layers.append(layers[1])
    query, key, value = (
      layer.reshape(batch, length, heads, -1)
      for layer, heads in zip(
        layers, (config.heads, config.kv_heads, config.kv_heads), strict=True
      )
    )
    gate = None
    if config.output_gate:
      query, gate = jnp.split(query, 2, axis=-1)
    if config.qk_norm:
      query, key = self.query_norm(query), self.key_norm(key)
    if config.value_norm:
      value = self.value_norm(value)
    if config.query_scale != 1.0:
      query = query * config.query_scale
    query, key = (
      rotate(turned, cos, sin, config.rope.neighbours) for turned in (query, key)
    )
    return query, key, value, gate


class SharingBlock(Block):
  """Attention to the keys and values of an earlier layer (Gemma 4 E2B, E4B)."""

  def _make_attention(self, linear, norm, *_) -> None:
    config = self.config
    heads = config.heads * config.head_dim
    self.query = linear("query", config.width, heads, config.qkv_bias)
    self.query_norm = norm(config.head_dim)
    self.out = linear("out", heads, config.width, config.out_bias)

  def __call__(
    self,
    x: Float[Array, "B L D"],
    cos: Float[Array, "B L 1 h"],
    sin: Float[Array, "B L 1 h"],
    attend: Callable[[Array], Array],
    at: Int[Array, "W n"] | None = None,
    inputs: Float[Array, "B L w"] | None = None,
  ) -> Float[Array, "..."]:
    """The block's output, as that of `DecoderBlock`; `attend` takes queries alone."""
    config = self.config
    query = self.query(self.attention_norm(x.reshape(-1, config.width)))
    query = self.query_norm(query.reshape(*x.shape[:2], config.heads, -1))
    query = rotate(query * config.query_scale, cos, sin, config.rope.neighbours)
    return self._finish(x, attend(query), at, inputs)


class LinearBlock(Block):
  """Linear attention by the gated delta rule."""

  def _make_attention(self, linear, norm, *rest) -> None:
    config = self.config
    assert config.linear is not None, "these layers have sizes of their own"
    self.mixer = DeltaMixer(config.linear, config.width, config.epsilon, *rest)
    self.out = linear("out", config.linear.values, config.width)

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
