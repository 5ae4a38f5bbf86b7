"""Turns FLOPs into time and money, with what is assumed of the devices."""

from typing import Any, NamedTuple

from mllm_selector_jax import listing
from mllm_selector_jax.planning.device_kinds import GPUS, TPUS
from mllm_selector_jax.types import InputError

# The share of the devices' peak at which executed FLOPs are taken to run, at the least
# and at the most, until a training has measured it: an assumption, not a measurement.
SHARES = (0.25, 0.4)
LONG = 7 * 24 * 3600.0  # seconds beyond which no one waits for a CPU


class Rate(NamedTuple):
  """How fast all devices together are.

  Attributes:
    peak: FLOP/s of all of them at their peak.
    mfu: the measured model FLOPs utilisation; None if none was measured.
  """

  peak: float
  mfu: float | None = None

  def seconds(self, model: float, executed: float) -> tuple[float, float]:
    """Return the least and the most seconds that so many FLOPs take.

    Args:
      model: model FLOPs, to which a measured utilisation refers.
      executed: executed FLOPs, to which the assumed shares refer.
    """
    if self.mfu is not None:
      return model / (self.peak * self.mfu), model / (self.peak * self.mfu)
    least, most = SHARES
    return executed / (self.peak * most), executed / (self.peak * least)

  def describe(self) -> str:
    """Say what is assumed."""
    if self.mfu is not None:
      return f"model FLOPs at plan.mfu={self.mfu:g} of the peak, as measured"
    least, most = SHARES
    return (
      f"executed FLOPs at {least:g} to {most:g} of the peak, which is assumed; give"
      " plan.mfu, the MFU that a training shows, once it is measured"
    )


def duration(seconds: Any) -> str:
  """Format seconds as seconds, minutes or hours."""
  number, unit = _split(seconds)
  return f"{number} {unit}"


def duration_range(least: float, most: float) -> str:
  """Format a range of seconds, as one duration if both ends read alike."""
  (low, low_unit), (high, high_unit) = _split(least), _split(most)
  if (low, low_unit) == (high, high_unit):
    return f"{low} {low_unit}"
  return f"{low} {'' if low_unit == high_unit else low_unit + ' '}to {high} {high_unit}"


def _split(seconds: float) -> tuple[str, str]:
  if seconds < 90:
    return f"{max(seconds, 1):.0f}", "s"
  if seconds < 5400:
    return f"{seconds / 60:.0f}", "min"
  return f"{seconds / 3600:,.1f}", "h"


def read_prices(value: Any) -> dict[str, float]:
  """Read what an hour of a device costs.

  Args:
    value: a number, for any device, or prices by generation: "h100=2.5, v5e=1.2".

  Returns:
    The prices by generation; the key "" is for all others.

  Raises:
    InputError: A price is no number above 0, or the generation is unknown.
  """
  prices = {}
  for item in listing.split_names(value):
    name, equals, amount = item.rpartition("=")
    try:
      price = float(amount)
    except ValueError:
      price = 0.0
    known = not equals or name.strip() in {**TPUS, **GPUS}
    if not 0 < price < float("inf") or not known:
      raise InputError(
        f"plan.price has {item!r}; give the price of a device hour, above 0, or prices"
        ' by generation, such as "h100=2.5,v5e=1.2" (there are'
        f" {', '.join([*TPUS, *GPUS])})."
      )
    prices[name.strip()] = price
  return prices


def find_price(prices: dict[str, float], generation: str) -> float | None:
  """Return what an hour of a device costs; None if no price is given for it."""
  return prices.get(generation, prices.get(""))


def cost_range(price: float, devices: int, least: float, most: float) -> str:
  """Format what so many devices cost for a range of seconds, in the price's unit."""
  low, high = (price * devices * seconds / 3600 for seconds in (least, most))
  numbers = f"{low:,.2f} to {high:,.2f}"
  return numbers if f"{low:.2f}" != f"{high:.2f}" else f"{low:,.2f}"
