"""A mixture of experts in the place of a decoder's MLP (Qwen3-VL-30B-A3B)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int

from mllm_selector_jax import sharding
from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models.activations import ACTIVATION_FNS
from mllm_selector_jax.models.decoder_config import DecoderConfig


class Experts(nnx.Module):
  """MLPs with a gate, of which each token passes a few.

  `gate_up` holds the columns of the gates, and then those of what they are multiplied
  with.
  """

  def __init__(self, config: DecoderConfig, dtype, rngs: nnx.Rngs):
    del rngs  # parameters are drawn by `initial`
    count, width, mlp = config.experts, config.width, config.mlp
    self.config, self.dtype = config, dtype
    self.router = nnx.Param(jnp.zeros((width, count)))
    self.gate_up = nnx.Param(jnp.zeros((count, width, 2 * mlp)))
    self.down = nnx.Param(jnp.zeros((count, mlp, width)))

  def __call__(self, x: Float[Array, "n D"]) -> Float[jax.Array, "n D"]:
    """The weighted sum of what each token's experts give."""
    config = self.config
    x = jnp.asarray(x, self.dtype)
    weights, chosen = choose_experts(x, self.router[...], config.experts_per_token)
    arrays = (
      *(x, weights, chosen, jnp.arange(config.experts)),
      *(self.gate_up[...].astype(self.dtype), self.down[...].astype(self.dtype)),
    )
    token, expert = ("batch", None), ("experts", None, None)
    axes = (token, token, token, ("experts",), expert, expert)

    def run(*arrays):
      return run_experts(config.activation, *arrays)[None]

    # Every device of the tensor axis has some of the experts, and adds up what these
    # give to all of its tokens.
    parts = sharding.map_shards(run, arrays, axes, ("experts", *token))
    return parts.sum(0).astype(self.dtype)


def choose_experts(
  x: Float[Array, "n D"], router: Float[Array, "D E"], count: int
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
  """Chooses each token's experts, those of the highest probability.

  Args:
    x: the tokens.
    router: its product with a token is the logits of the experts.
    count: k, experts of a token.

  Returns:
    The experts' weights, which sum to 1, in float32 or better, and their numbers. Of
    equally probable experts the first ones are chosen.
  """
  wide = jnp.promote_types(x.dtype, jnp.float32)
  logits = jnp.dot(x, router.astype(x.dtype), preferred_element_type=wide)
  probability, chosen = jax.lax.top_k(jax.nn.softmax(logits), count)
  return probability / probability.sum(-1, keepdims=True), chosen


def run_experts(
  activation: str,
  x: Float[Array, "n D"],
  weights: Float[Array, "n k"],
  chosen: Int[Array, "n k"],
  numbers: Int[Array, " e"],
  gate_up: Float[Array, "e D G"],
  down: Float[Array, "e F D"],
) -> Float[jax.Array, "n D"]:
  """The weighted sum of what some of the experts give to the tokens that chose them.

  Args:
    activation: a key of `ACTIVATION_FNS`.
    x: the tokens.
    weights, chosen: what `choose_experts` gave.
    numbers: of the experts that are here, ascending by one.
    gate_up, down: their parameters; G is 2 F.
  """
  count, (tokens, each) = len(numbers), chosen.shape
  local = (chosen - numbers[0]).reshape(-1)
  local = jnp.where((local >= 0) & (local < count), local, count)
  # The tokens in the order of their experts; those of experts elsewhere come last.
  order = jnp.argsort(local, stable=True)
  sizes = jnp.bincount(local, length=count).astype(jnp.int32)
  wide = jnp.promote_types(x.dtype, jnp.float32)

  def multiply(rows, matrices):
    product = jax.lax.ragged_dot(rows, matrices, sizes, preferred_element_type=wide)
    return product.astype(x.dtype)

  gate, up = jnp.split(multiply(x[order // each], gate_up), 2, axis=-1)
  given = multiply(ACTIVATION_FNS[activation](gate) * up, down)
  here = jnp.arange(len(order)) < sizes.sum()
  given = jnp.where(here[:, None], given, 0).astype(wide)
  given = jnp.zeros_like(given).at[order].set(given, unique_indices=True)
  return (given.reshape(tokens, each, -1) * weights[..., None]).sum(1)
