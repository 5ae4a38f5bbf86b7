"""Signals: one of the tokens' logits, and one of other columns."""

import jax.numpy as jnp

from mllm_selector_jax.scoring.signals import Signal


def margin(logits, targets, hidden):
  """How far each target's logit is below the largest logit of its token."""
  own = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
  return logits.max(-1) - own


def surprise(columns):
  """The loss above what the model expected it to be, in nats."""
  return columns["loss"] - columns["entropy"]


SURPRISE = Signal(columns=surprise)
