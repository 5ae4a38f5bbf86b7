"""Defines all signals: the numbers that scoring computes for each sample.

The device computes a few numbers for each supervised token (`token_signals`). The host
sums them by sample in float64, so that a score does not depend on how samples were
packed. A new signal is added here, and to `token_signals` if the device computes it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax import plugins
from mllm_selector_jax.types import InputError

# Columns that are means over a sample's supervised tokens, and the sum of each.
MEANS = {
  "loss": "loss",
  "accuracy": "correct",
  "entropy": "entropy",
  "el2n": "el2n",
  "grand": "grand",
}
# Columns that compare the loss with that of a control pass (passes.py): the name of
# the pass, and a function of (loss, control loss).
CONTROLS = {
  "visual": ("no_image", lambda loss, control: control - loss),
  "ifd": ("no_question", lambda loss, control: loss / control),
  "excess": ("reference", lambda loss, control: loss - control),
}
SIGNALS = (*MEANS, "loss_sum", "perplexity", *CONTROLS)
# Names of other columns, in parts or in the table, that a plug-in may not take.
_TAKEN = (
  *("row", "id", "hash", "seed", "supervised", "turn_losses", "embedding"),
  *MEANS.values(),
)

Columns = Mapping[str, Float[np.ndarray, " n"]]


@dataclasses.dataclass(frozen=True)
class Signal:
  """The signal of a plug-in, defined by exactly one of two functions.

  Attributes:
    tokens: Maps logits [n, V], targets [n] and final hidden states [n, D] of
      supervised tokens to one number for each token [n]. It runs on the device, under
      jit; the signal of a row is the mean over its tokens.
    columns: Maps the other columns by name, each [n], to one number for each row [n].
      It runs on the host, in float64.
  """

  tokens: Callable[..., Any] | None = None
  columns: Callable[[Columns], np.ndarray] | None = None


def _adapt(name: str, value: Any) -> Signal:
  if isinstance(value, Signal):
    if (value.tokens is None) == (value.columns is None):
      raise TypeError("a Signal has either tokens or columns.")
  elif callable(value):
    value = Signal(tokens=value)
  else:
    raise TypeError(
      f"it is a {type(value).__name__}; a signal is a function (logits, targets,"
      " hidden) -> a number a token, or a scoring.signals.Signal."
    )
  if name in _TAKEN:
    raise TypeError("the name is that of another column; choose another one.")
  return value


LOOKUP = plugins.Lookup(
  "signal", f"{plugins.PACKAGE}.signals", dict.fromkeys(SIGNALS, Signal()), _adapt
)


def find_plugged(names: Iterable[str]) -> dict[str, Signal]:
  """Load the plug-in signals among the names of `score.signals`.

  Raises:
    InputError: There is no such signal; see `plugins.Lookup.find`.
  """
  return {
    name: LOOKUP.find(name, "score.signals", "names")
    for name in names
    if name not in SIGNALS
  }


def list_token_signals(names: Iterable[str]) -> tuple[tuple[str, Callable], ...]:
  """Return the names and functions of the plug-in signals that run on the device."""
  plugged = find_plugged(names)
  return tuple(
    (name, signal.tokens) for name, signal in plugged.items() if signal.tokens
  )


def plugged_columns(
  functions: Mapping[str, Signal],
  sums: Columns,
  supervised: Int[np.ndarray, " n"],
  columns: Columns,
) -> dict[str, Float[np.ndarray, " n"]]:
  """Compute the columns of plug-in signals.

  Args:
    functions: The plug-in signals by name.
    sums: Sums over each sample's tokens, for the signals that run on the device.
    supervised: Number of supervised tokens of each sample.
    columns: The other columns by name.

  Raises:
    InputError: A function does not return one number for each row.
  """
  out, available = {}, {**columns, "supervised": supervised.astype(np.float64)}
  for name, signal in functions.items():
    if signal.columns is None:  # the device gave its sum over the row's tokens
      out[name] = sums[name] / supervised
      continue
    with plugins.calling(f"the signal {name}"):
      value = np.asarray(signal.columns(available), np.float64)
    if value.shape != supervised.shape:
      raise InputError(
        f"The signal {name} has the shape {value.shape} for {len(supervised):,} rows;"
        " it must give one number for each row."
      )
    out[name] = value
  return out


def projection(width: int, seed: int, dimensions: int = 256) -> np.ndarray | None:
  """Draw a Gaussian projection that preserves inner products in expectation.

  See Johnson and Lindenstrauss (1984).

  Returns:
    A float32 matrix [width, dimensions], or None if `width` is not larger than
    `dimensions`.
  """
  if width <= dimensions:
    return None
  rng = np.random.default_rng([seed, width, dimensions])
  return (rng.standard_normal((width, dimensions)) / np.sqrt(dimensions)).astype(
    np.float32
  )


def sum_by_item(
  tokens: dict[str, np.ndarray], item: Int[np.ndarray, "B T"], count: int
) -> dict[str, Float[np.ndarray, " count"]]:
  """Sum token signals by item, in float64.

  Args:
    tokens: Token signals by name, each [B, T].
    item: The item that each position belongs to, 0 to count - 1; -1 for padding.
    count: The number of items.
  """
  valid = item >= 0
  owner = item[valid]
  return {
    # Without any token bincount returns integers.
    name: np.bincount(owner, values[valid], count).astype(np.float64)
    for name, values in tokens.items()
  }


def sample_columns(
  sums: dict[str, Float[np.ndarray, " n"]],
  supervised: Int[np.ndarray, " n"],
  controls: dict[str, Float[np.ndarray, " n"]] | None = None,
) -> dict[str, Float[np.ndarray, " n"]]:
  """Compute the columns of the score table from the sums over each sample's tokens.

  Args:
    sums: Sums of token signals, by name.
    supervised: Number of supervised tokens of each sample.
    controls: Sum of the loss in each control pass. A column that compares with a
      control pass is made only if that pass is present.

  Returns:
    Columns by name. "loss", "accuracy", "entropy", "el2n", "grand": means over tokens.
    "visual": increase of the loss without the image (VisNec, Liu et al. 2025). "ifd":
    loss given image and questions, divided by the loss given only the image (Li et
    al. 2023, arXiv:2308.12032). "excess": loss minus that of a reference model
    (Mindermann et al. 2022, arXiv:2206.07137).
  """
  columns = {name: sums[part] / supervised for name, part in MEANS.items()}
  columns["loss_sum"] = sums["loss"]
  with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
    columns["perplexity"] = np.exp(columns["loss"])
    for name, (control, compare) in CONTROLS.items():
      if controls is not None and control in controls:
        columns[name] = compare(columns["loss"], controls[control] / supervised)
  return columns
