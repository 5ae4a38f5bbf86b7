"""What the layers of a decoder see, and how they turn, where these are of two kinds.

Some decoders have a window in most layers and none in the others, with wavelengths of
their own in each kind (Gemma 3). All layers are one compiled block, which is told at
run time which kind it is; unless the kinds have arrays of different shapes (Gemma 4),
and so are blocks of their own.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models.decoder_config import (
  FULL,
  LINEAR,
  SHARED_KINDS,
  WINDOW,
  DecoderConfig,
)
from mllm_selector_jax.models.rope import Rope


class View(NamedTuple):
  """What a layer needs besides its input.

  Attributes:
    cos, sin: of the angles by which queries and keys are turned.
    seen: an `attention.Attend`, or the bias [B seen] of a new token; of layers without
      keys and values a function of queries alone.
  """

  cos: Float[Array, "B L 1 h"]
  sin: Float[Array, "B L 1 h"]
  seen: Any


class Views(NamedTuple):
  """The views of all layers.

  Attributes:
    full: of the layers that see all tokens; None if there is none.
    windowed: of the others; None if there is none.
    is_full: for each layer, whether it sees all tokens.
    linear: what layers of linear attention are given; () if there are none.
    apart: whether the other kinds are blocks of their own.
    shared: by the kinds of layers that have no keys and values, what they attend to.
  """

  full: View | None
  windowed: View | None
  is_full: Bool[np.ndarray, " layers"]
  linear: tuple = ()
  apart: bool = False
  shared: Mapping[str, Callable[[Array], Array]] = MappingProxyType({})

  def pick(self, number: int | Array, kind: str = "") -> tuple:
    """Returns the view of a layer.

    Args:
      number: of the layer, which may be traced.
      kind: of the layer, by `DecoderConfig.kind`.
    """
    return self.linear if kind == LINEAR else self.find(number, kind)

  def find(self, number: int | Array, kind: str = "") -> View:
    """Returns the view of a layer with attention; see `pick`."""
    if kind in SHARED_KINDS:
      read = self.find(number, SHARED_KINDS[kind])
      return read._replace(seen=self.shared[kind])
    if self.apart:
      view = {FULL: self.full, WINDOW: self.windowed}[kind]
      assert view is not None, "there are layers of both kinds"
      return view
    if self.windowed is None or self.full is None:
      view = self.full or self.windowed
      assert view is not None, "a decoder has layers"
      return view
    if isinstance(number, int):
      return self.full if self.is_full[number] else self.windowed
    full, windowed = self.full, self.windowed
    flag = jnp.asarray(self.is_full)[number]
    cos = jnp.where(flag, full.cos, windowed.cos)
    sin = jnp.where(flag, full.sin, windowed.sin)
    if not callable(full.seen):
      return View(cos, sin, jnp.where(flag, full.seen, windowed.seen))

    def attend(query, key, value):
      # Only one of the two is computed.
      return jax.lax.cond(flag, full.seen, windowed.seen, query, key, value)

    return View(cos, sin, attend)


def list_full_layers(config: DecoderConfig) -> Bool[np.ndarray, " layers"]:
  """For each layer, whether its queries see all tokens."""
  if config.window is None:
    return np.ones(config.layers, bool)
  return np.isin(np.arange(config.layers), config.full_layers)


def list_windows(config: DecoderConfig) -> list[int | None]:
  """The windows that layers have, without repetition; None is all tokens."""
  full = list_full_layers(config)
  return [None] * bool(full.any()) + [config.window] * bool((~full).any())


def make_views(
  config: DecoderConfig,
  rotation: Callable[[Rope, int], tuple[Any, Any]],
  see: Callable[[int | None], Any],
) -> Views:
  """Makes the views of the kinds of layers that a decoder has.

  Args:
    config: of the decoder.
    rotation: cosine and sine of a rotary embedding, for heads of so many channels.
    see: for a window, or None for all tokens, what `View.seen` holds.
  """
  is_full = list_full_layers(config)

  def make(rope: Rope, kind: str, window: int | None) -> View:
    return View(*rotation(rope, config.of_kind(kind).head_dim), see(window))

  return Views(
    make(config.rope, FULL, None) if is_full.any() else None,
    None
    if is_full.all()
    else make(config.window_rope or config.rope, WINDOW, config.window),
    is_full,
    apart=config.full is not None,
  )
