"""Computes the signals of supervised tokens, on the device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from mllm_selector_jax import losses, plugins
from mllm_selector_jax.arrays import Array
from mllm_selector_jax.types import InputError


def token_signals(
  logits: Float[Array, "n V"],
  targets: Int[Array, " n"],
  hidden: Float[Array, "n D"],
  cap: float | None = None,
) -> dict[str, Float[Array, " n"]]:
  """Compute the signals of each supervised token, in float32.

  Args:
    logits: Of each token, below the cap if there is one.
    targets: The tokens.
    hidden: What the head multiplied.
    cap: The bound of `losses.cap_logits`.

  Returns:
    Signals by name. "loss": cross-entropy in nats. "correct": 1 if the most likely
    token is the target, otherwise 0. "entropy": entropy of the predicted distribution
    in nats. "el2n": L2 norm of the softmax minus the one-hot target (Paul et al. 2021,
    arXiv:2107.07075). "grand": norm of the gradient of the token's loss in the head's
    weights, which is |hidden| times el2n (GraNd of the same paper, last layer); of
    capped logits the difference is first multiplied by the slope of the cap.
  """
  logits = logits.astype(jnp.float32)
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  probs = jnp.exp(log_probs)
  picked = jnp.take_along_axis(probs, targets[:, None], axis=-1)[:, 0]
  # |p - onehot|^2 = |p|^2 - p_y^2 + (1 - p_y)^2, without a one-hot matrix.
  others_squared = jnp.maximum((probs**2).sum(-1) - picked**2, 0.0)
  el2n = jnp.sqrt(others_squared + (1.0 - picked) ** 2)
  slope = el2n
  if cap is not None:
    slopes = 1.0 - (logits / cap) ** 2
    at_target = jnp.take_along_axis(slopes, targets[:, None], axis=-1)[:, 0]
    total = ((probs * slopes) ** 2).sum(-1)
    others_squared = jnp.maximum(total - (picked * at_target) ** 2, 0.0)
    slope = jnp.sqrt(others_squared + ((1.0 - picked) * at_target) ** 2)
  norm = jnp.linalg.norm(hidden.astype(jnp.float32), axis=-1)
  return {
    "loss": losses.token_loss(logits, targets),
    "correct": (logits.argmax(-1) == targets).astype(jnp.float32),
    "entropy": -(probs * log_probs).sum(-1),
    "el2n": el2n,
    "grand": norm * slope,
  }


def plugged_signals(
  functions: tuple[tuple[str, Callable], ...],
  logits: Float[Array, "n V"],
  targets: Int[Array, " n"],
  hidden: Float[Array, "n D"],
) -> dict[str, Float[Array, " n"]]:
  """Compute the plug-in signals of each supervised token, in float32.

  Raises:
    InputError: A function does not return one number for each token.
  """
  out: dict[str, Float[Array, " n"]] = {}
  for name, function in functions:
    with plugins.calling(f"the signal {name}"):
      value = jnp.asarray(function(logits.astype(jnp.float32), targets, hidden))
    if value.shape != targets.shape:
      raise InputError(
        f"The signal {name} has the shape {value.shape} where the targets have"
        f" {targets.shape}; it must give one number for each token."
      )
    out[name] = value.astype(jnp.float32)
  return out


def token_losses(
  logits: Float[Array, "n V"], targets: Int[Array, " n"], hidden: Float[Array, "n D"]
) -> dict[str, Float[Array, " n"]]:
  """Compute only the loss of each supervised token, as `token_signals` does."""
  return {"loss": losses.token_loss(logits, targets)}
