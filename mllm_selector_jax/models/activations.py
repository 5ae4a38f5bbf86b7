"""The activations of MLPs and projectors, named as in `config_checks.ACTIVATIONS`."""

import functools
from collections.abc import Callable

import jax
from jaxtyping import Float


def quick_gelu(x: Float[jax.Array, "..."]) -> Float[jax.Array, "..."]:
  """The sigmoid approximation of GELU that CLIP was trained with."""
  return x * jax.nn.sigmoid(1.702 * x)


ACTIVATION_FNS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
  "quick_gelu": quick_gelu,
  "silu": jax.nn.silu,
}
