"""Rotary position embeddings: wavelengths and their scalings, read without jax."""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.types import InputError

# Base of the wavelengths of patches, in all towers of native resolution.
PATCH_THETA = 10000.0
KINDS = (
  "default",
  "linear",
  "dynamic",
  "llama3",
  "yarn",
  "longrope",
  "proportional",
)


@dataclasses.dataclass(frozen=True)
class Rope:
  """How fast each pair of a head's channels turns with the position.

  Attributes:
    theta: base of the wavelengths (RoFormer).
    kind: "default"; "linear" divides positions by `factor`; "dynamic" is the default
      up to the longest row that the model was made for, and is not run on longer
      ones (InternVL3); "llama3" slows the
      long waves only (Llama 3.1); "yarn" blends both and scales (YaRN); "longrope"
      slows each wave by its own of `factors` and scales (Phi-3); "proportional" pairs
      all channels, of which those beyond `share` stand still (Gemma 4).
    factor: by how much the context was stretched.
    original: the context before that, in tokens ("llama3", "yarn", "longrope").
    low, high: "llama3": waves longer than original / low are slowed by `factor`,
      shorter than original / high are kept. "yarn": beta_slow and beta_fast,
      turns within the original context between which it blends.
    attention: by which "yarn" and "longrope" multiply cosine and sine; None derives it.
    truncate: whether "yarn" rounds the ends of its blend to whole channels.
    sections: how many pairs of channels turn by the position in time, in row and in
      column (M-RoPE, Qwen2-VL); empty where there is one position.
    interleaved: whether the pairs of the three take turns, as far as those of row and
      column go (Qwen3-VL); otherwise they follow each other.
    share: of a head's channels that turn, the first ones (`partial_rotary_factor`).
    neighbours: whether pairs are the channels (0, 1), (2, 3), ... (GLM-4); otherwise
      the first half of those that turn is paired with the second.
    factors: "longrope": by which each pair's wave is slowed in rows of up to `original`
      tokens. It is not run on longer ones, which have other factors.
  """

  theta: float = 10000.0
  kind: str = "default"
  factor: float = 1.0
  original: int = 0
  low: float = 1.0
  high: float = 4.0
  attention: float | None = None
  truncate: bool = True
  sections: tuple[int, ...] = ()
  interleaved: bool = False
  share: float = 1.0
  neighbours: bool = False
  factors: tuple[float, ...] = ()

  def __post_init__(self):
    if self.kind not in KINDS:
      raise InputError(
        f"rope_type {self.kind!r} cannot be run; allowed: {', '.join(KINDS)}."
      )
    if not self.theta > 0 or not self.factor > 0:
      raise InputError(
        f"rope: theta={self.theta} and factor={self.factor} must be positive."
      )
    if self.kind in ("llama3", "yarn", "longrope") and self.original < 1:
      raise InputError(
        f"rope: {self.kind} needs original_max_position_embeddings, tokens."
      )
    if self.kind in ("llama3", "yarn") and not self.high > self.low > 0:
      raise InputError(
        f"rope: {self.kind} blends between {self.low} and {self.high}; the second"
        " must be larger, both positive."
      )
    if self.sections and (len(self.sections) != 3 or min(self.sections) < 0):
      raise InputError(
        f"rope: mrope_section is {list(self.sections)}; it must be three numbers, of"
        " time, row and column."
      )
    if not 0 < self.share <= 1:
      raise InputError(
        f"rope: partial_rotary_factor is {self.share}; it must be above 0 and at most"
        " 1."
      )

  def count_turned(self, head_dim: int) -> int:
    """How many of a head's channels turn.

    Raises:
      InputError: they make no pairs.
    """
    if self.kind == "proportional":
      return head_dim
    turned = int(head_dim * self.share)
    if turned < 2 or turned % 2:
      raise InputError(
        f"rope: partial_rotary_factor {self.share} of the {head_dim} channels of a head"
        f" are {turned}, which must be even and not 0."
      )
    return turned

  def frequencies(self, head_dim: int) -> Float[np.ndarray, " h"]:
    """Radians a position of each pair of the channels that turn, float64."""
    turned = self.count_turned(head_dim)
    plain = self.theta ** -(np.arange(0, turned, 2, dtype=np.float64) / turned)
    if self.kind == "linear":
      return plain / self.factor
    if self.kind == "proportional":
      moving = np.arange(len(plain)) < int(self.share * head_dim // 2)
      return np.where(moving, plain / self.factor, 0.0)
    if self.kind == "llama3":
      # Turns within the original context: 1 at the wave as long as it.
      turns = self.original * plain / (2 * math.pi)
      kept = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
      return plain * (kept + (1 - kept) / self.factor)
    if self.kind == "yarn":
      first, last = (self._channel(turns, turned) for turns in (self.high, self.low))
      if self.truncate:
        first, last = math.floor(first), math.ceil(last)
      first, last = max(first, 0), min(last, turned - 1)
      last += 0.001 * (first == last)
      places = np.arange(turned // 2)
      slowed = np.clip((places - first) / (last - first), 0, 1)
      return plain * (1 - slowed + slowed / self.factor)
    if self.factors:
      if len(self.factors) != len(plain):
        raise InputError(
          f"rope: short_factor has {len(self.factors)} numbers, but {len(plain)} pairs"
          " of channels turn."
        )
      return plain / np.asarray(self.factors, np.float64)
    return plain

  def channel_axes(self, head_dim: int) -> Int[np.ndarray, " h"]:
    """Returns which position each pair of the channels that turn turns by.

    0 is the position in time, 1 in row, 2 in column.

    Raises:
      InputError: `sections` do not fit the head.
    """
    time, row, column = self.sections
    pairs = self.count_turned(head_dim) // 2
    if time + row + column != pairs:
      raise InputError(
        f"rope: mrope_section {list(self.sections)} must add up to {pairs}, half of the"
        f" channels of a head that turn."
      )
    if not self.interleaved:
      return np.repeat(np.arange(3), self.sections)
    axes = np.zeros(pairs, np.int64)
    axes[1 : 3 * row : 3] = 1
    axes[2 : 3 * column : 3] = 2
    return axes

  def _channel(self, turns: float, turned: int) -> float:
    """The pair that turns so often within the original context."""
    length = self.original / (turns * 2 * math.pi)
    return turned * math.log(length) / (2 * math.log(self.theta))

  @property
  def scale(self) -> float:
    """By which cosine and sine are multiplied."""
    if self.kind not in ("yarn", "longrope"):
      return 1.0
    if self.attention is not None:
      return self.attention
    if self.kind == "longrope":
      stretched = math.log(max(self.factor, 1.0))
      return math.sqrt(1 + stretched / math.log(self.original))
    return 0.1 * math.log(max(self.factor, 1.0)) + 1.0
