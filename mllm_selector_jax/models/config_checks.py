"""What the configs of a model's parts allow, and how they refuse the rest."""

from mllm_selector_jax.types import InputError

ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "quick_gelu", "silu")
NORMS = ("layer_norm", "rms_norm", "offset_rms_norm", "bare_rms_norm")


def check_heads(name: str, width: int, heads: int) -> None:
  """Refuses a width that does not divide into heads."""
  if width % heads:
    raise InputError(f"{name}: a width of {width} does not divide into {heads} heads.")


def check_activation(name: str, activation: str) -> None:
  """Refuses an activation that is not one of `ACTIVATIONS`."""
  if activation not in ACTIVATIONS:
    raise InputError(
      f"{name}: activation {activation!r} is not one of {', '.join(ACTIVATIONS)}."
    )
