"""Linear attention by the gated delta rule: what some layers have for attention.

Queries, keys and values pass a short convolution over the tokens before them. Neither
it nor the state crosses from one packed segment to the next, and both go on from a
trunk into each of its branches.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models import delta_rule
from mllm_selector_jax.models.cache import State
from mllm_selector_jax.models.decoder_config import LinearConfig
from mllm_selector_jax.models.lora import make_linear
from mllm_selector_jax.models.lora_options import LoraConfig

EPSILON = 1e-6  # of the lengths of queries and keys, which no config states


class Lineage(NamedTuple):
  """What tokens of packed rows go on from; of all layers.

  Attributes:
    chunks: for the states.
    offset: a token's place in its segment.
    trunk_end: the place in the row where the trunk of a branch ends; -1: no branch.
      None: no row has one.
    real: tokens that change the state; None: all.
  """

  chunks: delta_rule.Chunks
  offset: Int[Array, "B L"]
  trunk_end: Int[Array, "B L"] | None
  real: Bool[Array, "B L"] | None = None


def trace(
  segments: Int[Array, "B L"],
  prefixes: Int[Array, "B L"] | None,
  real: Bool[Array, "B L"] | None = None,
) -> Lineage:
  """Finds what tokens go on from.

  Args:
    segments, prefixes: as in `attention.Layout`.
    real: tokens that change the state; None: all.
  """
  place = jnp.broadcast_to(jnp.arange(segments.shape[1]), segments.shape)
  before = jnp.pad(segments[:, :-1], ((0, 0), (1, 0)))
  # Padding goes on from nothing.
  first = (segments != before) | (segments < 1)
  start = jax.lax.cummax(jnp.where(first, place, 0), axis=1)
  size = min(delta_rule.SIZE, 1 << (segments.shape[1] - 1).bit_length())
  chunks = delta_rule.cut_rows(segments, prefixes, size)
  end = None
  if prefixes is not None:
    plain = (segments > 0) & (prefixes < 1)
    end = jax.lax.cummax(jnp.where(plain, place, -1), axis=1)
    end = jnp.where(prefixes > 0, end, -1)
  return Lineage(chunks, place - start, end, real)


def convolve(
  x: Float[Array, "B L c"], kernel: Float[Array, "taps c"], lineage: Lineage
) -> Float[jax.Array, "B L c"]:
  """Each channel's weighted sum over a token and those before it.

  The last of the kernel's rows is of the token itself.
  """
  taps, length = len(kernel), x.shape[1]
  mixed = jnp.asarray(x) * kernel[-1][None, None]
  place = jnp.arange(length)[None]
  for back in range(1, min(taps, length)):
    near = lineage.offset >= back
    earlier = jnp.pad(x[:, : length - back], ((0, 0), (back, 0), (0, 0)))
    if lineage.trunk_end is not None:
      end = lineage.trunk_end
      inside = back - lineage.offset - 1  # places from the end of the trunk
      last = jnp.take_along_axis(lineage.offset, jnp.maximum(end, 0), axis=1)
      index = jnp.where(near, place - back, end - inside)
      earlier = jnp.take_along_axis(x, jnp.maximum(index, 0)[..., None], axis=1)
      near |= (end >= 0) & (inside <= last)
    weight = kernel[taps - 1 - back][None, None]
    mixed = mixed + jnp.where(near[..., None], earlier, 0) * weight
  return mixed


class DeltaMixer(nnx.Module):
  """What stands in a layer of linear attention where others have attention."""

  def __init__(
    self,
    config: LinearConfig,
    width: int,
    epsilon: float,
    lora: LoraConfig | None,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    self.config, self.epsilon, self.dtype = config, epsilon, dtype
    channels = 2 * config.keys + config.values

    def linear(outputs):
      kind = {"use_bias": False, "dtype": dtype, "rngs": rngs}
      return make_linear(width, outputs, lora, **kind)

    self.mix = linear(channels)
    self.open = linear(config.values)
    self.write = linear(config.value_heads)
    self.forget = linear(config.value_heads)
    self.convolution = nnx.Param(jnp.zeros((config.taps, channels)))
    self.forget_log = nnx.Param(jnp.zeros(config.value_heads))
    self.forget_bias = nnx.Param(jnp.zeros(config.value_heads))
    self.mixed_scale = nnx.Param(jnp.ones(config.value_dim))

  def __call__(
    self, normed: Float[Array, "B L D"], lineage: Lineage
  ) -> Float[jax.Array, "B L values"]:
    """What the layer's last matrix multiplies."""
    return self.read(normed, lineage)[0]

  def read(
    self,
    normed: Float[Array, "B L D"],
    lineage: Lineage,
    lengths: Int[Array, " B"] | None = None,
  ) -> tuple[Float[jax.Array, "B L values"], State]:
    """The same, and what rows of that many tokens leave to the next token."""
    flat = normed.reshape(-1, normed.shape[-1])
    mixed = self.mix(flat).reshape(*normed.shape[:2], -1)
    wide = self._widen(mixed)
    kernel = self.convolution[...].astype(wide.dtype)
    query, key, value = self._split(jax.nn.silu(convolve(wide, kernel, lineage)))
    decay, write = (self._shape(x, normed) for x in self._rates(flat))
    if lineage.real is not None:
      real = lineage.real[..., None]
      decay, write = jnp.where(real, decay, 0), jnp.where(real, write, 0)
    answers, state = delta_rule.scan(query, key, value, decay, write, lineage.chunks)
    out = self._leave(answers, flat).reshape(*normed.shape[:2], -1)
    if lengths is None:
      lengths = jnp.full(len(normed), normed.shape[1])
    back = jnp.arange(1 - self.config.taps, 0)
    index = lengths[:, None] + back[None]
    tail = jnp.take_along_axis(mixed, jnp.maximum(index, 0)[..., None], axis=1)
    return out, State(jnp.where((index >= 0)[..., None], tail, 0), state)

  def extend(
    self, normed: Float[Array, "B 1 D"], past: State
  ) -> tuple[Float[jax.Array, "B 1 values"], State]:
    """The same for one more token a row."""
    flat = normed[:, 0]
    seen = jnp.concatenate([past.tail, self.mix(flat)[:, None]], axis=1)
    wide = self._widen(seen)
    mixed = (wide * self.convolution[...].astype(wide.dtype)[None]).sum(1)
    query, key, value = self._split(jax.nn.silu(mixed))
    answers, state = delta_rule.advance(
      past.state, query, key, value, *self._rates(flat)
    )
    return self._leave(answers, flat)[:, None], State(seen[:, 1:], state)

  def _widen(self, x: jax.Array) -> jax.Array:
    """In float32 or better."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))

  def _shape(self, x: jax.Array, like: Any) -> jax.Array:
    return x.reshape(*like.shape[:2], -1)

  def _rates(self, flat) -> tuple[jax.Array, jax.Array]:
    """The logarithm of what each head keeps, and which share it corrects."""
    forget = self._widen(self.forget(flat))
    rate = jnp.exp(self.forget_log[...].astype(forget.dtype))[None]
    bias = self.forget_bias[...].astype(forget.dtype)[None]
    write = jax.nn.sigmoid(self._widen(self.write(flat)))
    return -rate * jax.nn.softplus(forget + bias), write

  def _split(self, mixed) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries and keys of a head's length, and values, head by head."""
    config = self.config
    parts = jnp.split(mixed, (config.keys, 2 * config.keys), axis=-1)
    heads = (config.key_dim, config.key_dim, config.value_dim)
    query, key, value = (
      part.reshape(*part.shape[:-1], -1, width)
      for part, width in zip(parts, heads, strict=True)
    )

    def normalise(x):
      return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + EPSILON)

    return normalise(query) * config.key_dim**-0.5, normalise(key), value

  def _leave(self, answers, flat) -> jax.Array:
    """The heads' answers, normed, through their gates."""
    square = jnp.square(answers).mean(-1, keepdims=True)
    scale = self.mixed_scale[...].astype(answers.dtype)
    normed = answers * jax.lax.rsqrt(square + self.epsilon)
    normed = normed * scale.reshape((1,) * (normed.ndim - 1) + scale.shape)
    gate = jax.nn.silu(self._widen(self.open(flat)))
    return (normed.reshape(gate.shape) * gate).astype(self.dtype)
