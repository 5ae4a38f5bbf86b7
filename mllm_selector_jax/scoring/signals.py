"""What is computed per sample: the table of signals, and what the host makes of them.

On the device each supervised token gives a few numbers (`token_signals`); on the host
they are summed in float64, so a sample's score does not depend on how it was packed. A
new signal is a line here and, if the device computes it, one there.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax import plugins
from mllm_selector_jax.types import InputError

# Columns that are means over a sample's supervised tokens, and of which sum.
MEANS = {
  "loss": "loss",
  "accuracy": "correct",
  "entropy": "entropy",
  "el2n": "el2n",
  "grand": "grand",
}
# Columns that compare the loss with that of a control pass (passes.py): which
# one, and how (loss, control loss).
CONTROLS = {
  "visual": ("no_image", lambda loss, control: control - loss),
  "ifd": ("no_question", lambda loss, control: loss / control),
  "excess": ("reference", lambda loss, control: loss - control),
}
SIGNALS = (*MEANS, "loss_sum", "perplexity", *CONTROLS)
# Columns of parts and of the table that are no signals.
_TAKEN = (
  *("row", "id", "hash", "seed", "supervised", "turn_losses", "embedding"),
  *MEANS.values(),
)

Columns = Mapping[str, Float[np.ndarray, " n"]]


@dataclasses.dataclass(frozen=True)
class Signal:
  """A plug-in's signal; it has one of these two functions.

  Attributes:
    tokens: from logits [n, V], targets [n] and final hidden states [n, D] of
      supervised tokens to a number for each [n]. It runs on the device, under jit; a
      row's signal is the mean over its tokens.
    columns: from the other columns by name, each [n], to a number a row [n]. It runs
      on the host, in float64.
  """

  tokens: Callable[..., Any] | None = None
  columns: Callable[[Columns], np.ndarray] | None = None


def _adapt(name: str, found: Any) -> Signal:
  if isinstance(found, Signal):
    if (found.tokens is None) == (found.columns is None):
      raise TypeError("a Signal has either tokens or columns.")
  elif callable(found):
    found = Signal(tokens=found)
  else:
    raise TypeError(
      f"it is a {type(found).__name__}; a signal is a function (logits, targets,"
      " hidden) -> a number a token, or a scoring.signals.Signal."
    )
  if name in _TAKEN:
    raise TypeError("the name is that of another column; choose another one.")
  return found


LOOKUP = plugins.Lookup(
  "signal", f"{plugins.PACKAGE}.signals", dict.fromkeys(SIGNALS, Signal()), _adapt
)


def find_plugged(names: Iterable[str]) -> dict[str, Signal]:
  """The plug-ins among the names of score.signals, by name.

  Raises:
    InputError: there is no such signal; see `plugins.Lookup.find`.
  """
  return {
    name: LOOKUP.find(name, "score.signals", "names")
    for name in names
    if name not in SIGNALS
  }


def list_token_signals(names: Iterable[str]) -> tuple[tuple[str, Callable], ...]:
  """Names and functions of the plug-ins that run on the device."""
  found = find_plugged(names)
  return tuple((name, each.tokens) for name, each in found.items() if each.tokens)


def plugged_columns(
  functions: Mapping[str, Signal],
  sums: Columns,
  supervised: Int[np.ndarray, " n"],
  made: Columns,
) -> dict[str, Float[np.ndarray, " n"]]:
  """The columns of plug-ins, of token sums or of the other columns.

  Args:
    functions: by name.
    sums: over a sample's tokens, of those that run on the device.
    supervised: tokens of each sample.
    made: the other columns.

  Raises:
    InputError: one is not a number a row.
  """
  out, there = {}, {**made, "supervised": supervised.astype(np.float64)}
  for name, signal in functions.items():
    if signal.columns is None:  # the device gave its sum over the row's tokens
      out[name] = sums[name] / supervised
      continue
    with plugins.calling(f"the signal {name}"):
      value = np.asarray(signal.columns(there), np.float64)
    if value.shape != supervised.shape:
      raise InputError(
        f"The signal {name} has the shape {value.shape} for {len(supervised):,} rows;"
        " it must be a number a row."
      )
    out[name] = value
  return out


def projection(width: int, seed: int, most: int = 256) -> np.ndarray | None:
  """A seeded Gaussian projection to `most` dimensions; None if none is needed.

  Inner products are kept in expectation (Johnson and Lindenstrauss 1984).
  """
  if width <= most:
    return None
  rng = np.random.default_rng([seed, width, most])
  return (rng.standard_normal((width, most)) / np.sqrt(most)).astype(np.float32)


def sum_by_item(
  tokens: dict[str, np.ndarray], item: Int[np.ndarray, "B T"], count: int
) -> dict[str, Float[np.ndarray, " count"]]:
  """Sums of token signals for each item, in float64.

  Args:
    tokens: signals [B, T].
    item: to whom each position belongs, 0 to count - 1; -1 for padding.
    count: the number of items.
  """
  valid = item >= 0
  owner = item[valid]
  return {
    # Of no tokens at all, bincount's zeros are whole numbers.
    name: np.bincount(owner, values[valid], count).astype(np.float64)
    for name, values in tokens.items()
  }


def sample_columns(
  sums: dict[str, Float[np.ndarray, " n"]],
  supervised: Int[np.ndarray, " n"],
  controls: dict[str, Float[np.ndarray, " n"]] | None = None,
) -> dict[str, Float[np.ndarray, " n"]]:
  """The columns of the score table from a sample's sums over its tokens.

  Args:
    sums: of token signals.
    supervised: tokens of each sample.
    controls: each control pass's sum of the loss; a column is made where its own
      pass is there.

  Returns:
    Columns by signal. loss, accuracy, entropy, el2n, grand: means. visual: what
    the loss would rise by without the image (Liu et al. 2025, VisNec), 0 where
    there is none. ifd: the loss given image and questions over that given the
    image alone (Li et al. 2023, arXiv:2308.12032). excess: over a reference
    model's (Mindermann et al. 2022, arXiv:2206.07137).
  """
  columns = {name: sums[part] / supervised for name, part in MEANS.items()}
  columns["loss_sum"] = sums["loss"]
  with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
    columns["perplexity"] = np.exp(columns["loss"])
    for name, (control, compare) in CONTROLS.items():
      if controls is not None and control in controls:
        columns[name] = compare(columns["loss"], controls[control] / supervised)
  return columns
