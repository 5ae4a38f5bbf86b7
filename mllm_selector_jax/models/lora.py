"""LoRA: low-rank adapters of the decoder's linear layers.

The base's arrays stay as they are; what is learned lies beside them, in
`params["adapter"]`, {"layers": {"query": {"lora_a", "lora_b"}, ...}}, stacked over
the layers as the decoder's own are. Hu et al. 2021, arXiv 2106.09685.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models.config import LoraConfig, MllmConfig
from mllm_selector_jax.types import Params

PARTS = ("lora_a", "lora_b")


class AdaptedLinear(nnx.Linear):
  """x W + b + scale (x A) B."""

  def __init__(self, inputs: int, outputs: int, lora: LoraConfig, **kwargs: Any):
    super().__init__(inputs, outputs, **kwargs)
    self.lora_a = nnx.Param(jnp.zeros((inputs, lora.rank)))
    self.lora_b = nnx.Param(jnp.zeros((lora.rank, outputs)))
    self.lora_scale = lora.scale

  def __call__(
    self, inputs: Float[Array, "n inputs"], out_sharding: Any = None
  ) -> Float[jax.Array, "n outputs"]:
    down, up = (p[...].astype(self.dtype) for p in (self.lora_a, self.lora_b))
    change = (inputs.astype(self.dtype) @ down) @ up
    base = super().__call__(jnp.asarray(inputs), out_sharding)
    return base + change * self.lora_scale


def detach(decoder: Params) -> tuple[Params, Params]:
  """A decoder's parameters with adapters as (its own, the adapters)."""
  own, adapter = {}, {}
  for name, module in decoder["layers"].items():
    own[name] = {key: leaf for key, leaf in module.items() if key not in PARTS}
    if len(own[name]) < len(module):
      adapter[name] = {key: module[key] for key in PARTS}
  return {**decoder, "layers": own}, {"layers": adapter}


def attach(decoder: Params, adapter: Params) -> Params:
  """What `detach` took apart."""
  adapted = adapter["layers"]
  layers = {
    name: {**module, **adapted.get(name, {})}
    for name, module in decoder["layers"].items()
  }
  return {**decoder, "layers": layers}


def merge(config: MllmConfig, params: Params) -> tuple[MllmConfig, Params]:
  """The model of its base's form that computes the same: W + scale A B, in float32.

  The base's arrays are not changed; kernels with an adapter are new arrays, and lie
  on the devices as the old ones do.
  """
  assert config.lora is not None
  base = {name: part for name, part in params.items() if name != "adapter"}
  layers = dict(params["decoder"]["layers"])
  for name, adapter in params["adapter"]["layers"].items():
    kernel = layers[name]["kernel"]
    add = _make_add(config.lora.scale, getattr(kernel, "sharding", None))
    merged = add(kernel, adapter["lora_a"], adapter["lora_b"])
    layers[name] = {**layers[name], "kernel": merged}
  base["decoder"] = {**base["decoder"], "layers": layers}
  return dataclasses.replace(config, lora=None), base


@functools.lru_cache(maxsize=64)
def _make_add(scale: float, layout: Any):
  def add(kernel, down, up):
    change = jnp.matmul(down, up, precision="highest")
    return kernel + change.astype(kernel.dtype) * scale

  return jax.jit(add, out_shardings=layout)
