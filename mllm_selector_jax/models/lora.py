"""LoRA: low-rank adapters of linear layers.

The base's arrays stay as they are; what is learned lies beside them, in
`params["adapter"]`: {"layers": {"query": {"lora_a", "lora_b"}, ...}} for the decoder's
blocks, and under "vision" and "projector" the adapters of these parts, in trees like
theirs. What is stacked over layers is so here too. Hu et al. 2021, arXiv 2106.09685.
"""

import dataclasses
import functools
import itertools
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from mllm_selector_jax.arrays import Array
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.lora_options import MODULES, LoraConfig
from mllm_selector_jax.types import Params

MATRICES = ("lora_a", "lora_b")
# The adapters that linear layers share which are one layer in transformers.
SHARED = {"qkv": ("query", "key", "value"), "gate_up": ("gate", "up")}


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


class SharedAdapter(nnx.Module):
  """The adapter of several linear layers: scale (x A) B, with a part of B for each."""

  def __init__(
    self, inputs: int, outputs: tuple[int, ...], lora: LoraConfig, dtype: Any
  ):
    self.lora_a = nnx.Param(jnp.zeros((inputs, lora.rank)))
    self.lora_b = nnx.Param(jnp.zeros((lora.rank, sum(outputs))))
    self.ends = tuple(itertools.accumulate(outputs))
    self.lora_scale, self.dtype = lora.scale, dtype

  def __call__(self, inputs: Float[Array, "n inputs"]) -> list[jax.Array]:
    """What is added to the output of each layer."""
    down, up = (p[...].astype(self.dtype) for p in (self.lora_a, self.lora_b))
    change = (inputs.astype(self.dtype) @ down) @ up * self.lora_scale
    return jnp.split(change, self.ends[:-1], axis=-1)


def make_linear(
  inputs: int, outputs: int, lora: LoraConfig | None, **kwargs: Any
) -> nnx.Linear:
  """A linear layer, with an adapter if there is a config for it."""
  if lora is None:
    return nnx.Linear(inputs, outputs, **kwargs)
  return AdaptedLinear(inputs, outputs, lora, **kwargs)


def share_adapter(
  block: nnx.Module, name: str, lora: LoraConfig | None, dtype: Any
) -> None:
  """Gives layers of a block the adapter that they share, if there is a config for it.

  Args:
    block: has the layers.
    name: one of `SHARED`.
    lora: of the adapter.
    dtype: of the computation.
  """
  if lora is not None:
    layers = [getattr(block, layer) for layer in SHARED[name]]
    outputs = tuple(layer.out_features for layer in layers)
    adapter = SharedAdapter(layers[0].in_features, outputs, lora, dtype)
    setattr(block, name, adapter)


def apply_layers(
  block: nnx.Module, name: str, inputs: Float[Array, "n inputs"]
) -> list[jax.Array]:
  """The outputs of layers of a block that may share an adapter.

  Args:
    block: has the layers.
    name: one of `SHARED`, layers of which the block may lack.
    inputs: of all of them.
  """
  layers = [layer for layer in SHARED[name] if hasattr(block, layer)]
  outputs = [getattr(block, layer)(inputs) for layer in layers]
  if not hasattr(block, name):
    return outputs
  changes = getattr(block, name)(inputs)
  return [output + change for output, change in zip(outputs, changes, strict=True)]


def find_adapter(config: MllmConfig, module: str) -> LoraConfig | None:
  """The adapters of one of `lora_options.MODULES`; None if it has none."""
  assert module in MODULES, module
  if config.lora is None or module not in config.lora.modules:
    return None
  return config.lora


def list_adapted(adapter: Collection[str]) -> tuple[str, ...]:
  """The parts of the parameters that an adapter's tree is of."""
  return tuple(
    part
    for part in MODULES.values()
    if ("layers" if part == "decoder" else part) in adapter
  )


def detach(params: Params) -> Params:
  """The parameters of a model with adapters, these in a part of their own."""
  own: Params = {}
  adapter: Params = {}
  for part, tree in params.items():
    own[part], found = _split(tree)
    if found:
      adapter |= found if part == "decoder" else {part: found}
  return {**own, "adapter": adapter}


def attach(params: Params) -> Params:
  """What `detach` took apart."""
  own = {part: tree for part, tree in params.items() if part != "adapter"}
  for part in list_adapted(params["adapter"]):
    own[part] = _join(own[part], pick(params["adapter"], part))
  return own


def pick(adapter: Params, part: str) -> Params:
  """The adapters of a part of the parameters, in a tree like its own."""
  return {"layers": adapter["layers"]} if part == "decoder" else adapter[part]


def _split(tree: Params) -> tuple[Params, Params]:
  own: Params = {}
  adapter: Params = {}
  for name, leaf in tree.items():
    if not isinstance(leaf, dict):
      (adapter if name in MATRICES else own)[name] = leaf
      continue
    inner, found = _split(leaf)
    if inner or not found:  # a shared adapter has no module of the base
      own[name] = inner
    if found:
      adapter[name] = found
  return own, adapter


def _join(tree: Params, adapter: Params) -> Params:
  joined = dict(tree)
  for name, leaf in adapter.items():
    joined[name] = _join(tree.get(name, {}), leaf) if isinstance(leaf, dict) else leaf
  return joined


def merge(config: MllmConfig, params: Params) -> tuple[MllmConfig, Params]:
  """The model of its base's form that computes the same: W + scale A B, in float32.

  The base's arrays are not changed; kernels with an adapter are new arrays, and lie
  on the devices as the old ones do.
  """
  assert config.lora is not None
  base = {name: part for name, part in params.items() if name != "adapter"}
  for part in list_adapted(params["adapter"]):
    adapter = pick(params["adapter"], part)
    base[part] = _merge_tree(base[part], adapter, config.lora.scale)
  return dataclasses.replace(config, lora=None), base


def _merge_tree(tree: Params, adapter: Params, scale: float) -> Params:
  merged = dict(tree)
  for name, own in adapter.items():
    if name in SHARED:
      start = 0
      for layer in SHARED[name]:
        stop = start + tree[layer]["kernel"].shape[-1]
        up = own["lora_b"][..., start:stop]
        merged[layer] = _merge_layer(tree[layer], own["lora_a"], up, scale)
        start = stop
    elif "lora_a" in own:
      merged[name] = _merge_layer(tree[name], own["lora_a"], own["lora_b"], scale)
    else:
      merged[name] = _merge_tree(tree[name], own, scale)
  return merged


def _merge_layer(layer: Params, down: Any, up: Any, scale: float) -> Params:
  kernel = layer["kernel"]
  add = _make_add(scale, getattr(kernel, "sharding", None))
  return {**layer, "kernel": add(kernel, down, up)}


@functools.lru_cache(maxsize=64)
def _make_add(scale: float, layout: Any):
  def add(kernel, down, up):
    change = jnp.matmul(down, up, precision="highest")
    return kernel + change.astype(kernel.dtype) * scale

  return jax.jit(add, out_shardings=layout)
