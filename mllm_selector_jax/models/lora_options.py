"""The options of LoRA adapters, which are read without jax."""

import dataclasses

from mllm_selector_jax.types import InputError

# What can have adapters, and the part of the parameters that it is.
MODULES = {"decoder": "decoder", "projector": "projector", "tower": "vision"}


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """Low-rank adapters of linear layers.

  Attributes:
    rank: inner width of an adapter.
    alpha: an adapter's output is multiplied by alpha / rank.
    modules: names of `MODULES`: all linear layers of the blocks of decoder and tower,
      and those of the projector, have adapters.
  """

  rank: int
  alpha: float
  modules: tuple[str, ...] = ("decoder",)

  def __post_init__(self):
    if self.rank < 1 or not self.alpha > 0:
      raise InputError(
        f"LoRA: rank={self.rank}, alpha={self.alpha}; the rank must be 1 or more and"
        " alpha positive."
      )
    if not self.modules or not set(self.modules) <= set(MODULES):
      raise InputError(
        f"LoRA: modules={','.join(self.modules)!r}; allowed are"
        f" {', '.join(MODULES)}, one or several."
      )

  @property
  def scale(self) -> float:
    """What an adapter's output is multiplied by."""
    return self.alpha / self.rank

  @property
  def parts(self) -> tuple[str, ...]:
    """The parts of the parameters that have adapters."""
    return tuple(MODULES[name] for name in self.modules)
