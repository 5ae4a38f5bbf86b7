import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from mllm_selector_jax import sharding
from mllm_selector_jax.models import axes, lora, mllm
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.types import InputError
from tests.models import packed, trees

CONFIG = packed.make_config(lora=LoraConfig(rank=4, alpha=8.0), decoder_qkv_bias=True)
BASE = dataclasses.replace(CONFIG, lora=None)


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, batch):
  return mllm.hidden_states(config, params, batch)


def make_rows():
  rng = np.random.default_rng(0)
  sizes = ((6, True), (5, False), (7, True))
  return [
    [packed.random_sample(CONFIG, rng, size, image) for size, image in sizes],
    [packed.random_sample(CONFIG, rng, 9, False)],
  ]


def test_a_linear_layer_is_changed_by_the_scaled_product():
  rng = np.random.default_rng(0)
  layer = lora.AdaptedLinear(5, 7, CONFIG.lora, rngs=nnx.Rngs(0))
  down, up, bias = rng.normal(size=(5, 4)), rng.normal(size=(4, 7)), rng.normal(size=7)
  layer.lora_a[...], layer.lora_b[...], layer.bias[...] = down, up, bias
  x = rng.normal(size=(4, 5)).astype(np.float32)
  wanted = x @ (np.asarray(layer.kernel[...]) + 8.0 / 4 * down @ up) + bias
  np.testing.assert_allclose(layer(x), wanted, rtol=1e-5, atol=1e-5)


def test_a_fresh_adapter_changes_no_bit():
  params = packed.random_params(BASE)
  config, adapted = mllm.add_adapter(BASE, params, CONFIG.lora, seed=1)
  assert config == CONFIG and "adapter" not in params
  batch = packed.pack(CONFIG, make_rows(), 40)
  np.testing.assert_array_equal(run(config, adapted, batch), run(BASE, params, batch))
  down = adapted["adapter"]["layers"]["down"]["lora_a"]
  bound = 1 / np.sqrt(CONFIG.decoder.mlp)
  assert down.shape == (2, 24, 4) and 0.8 * bound < np.abs(down).max() <= bound
  assert set(adapted["adapter"]["layers"]) == {
    "query", "key", "value", "out", "gate", "up", "down"
  }  # fmt: skip


def test_what_is_attached_is_detached_again():
  params = mllm.abstract(CONFIG)
  whole = lora.attach(params["decoder"], params["adapter"])
  assert lora.detach(whole) == (params["decoder"], params["adapter"])
  assert mllm.abstract(BASE)["decoder"] == params["decoder"]


def test_merged_kernels_compute_the_same():
  params = packed.random_params(CONFIG)
  before = jax.tree.map(np.asarray, params)
  config, merged = lora.merge(CONFIG, params)
  assert config == BASE and merged.keys() == mllm.abstract(BASE).keys()
  jax.tree.map(np.testing.assert_array_equal, params, before)
  for name, adapter in before["adapter"]["layers"].items():
    wide = jax.tree.map(np.float64, adapter)
    change = 2.0 * wide["lora_a"] @ wide["lora_b"]
    np.testing.assert_allclose(
      merged["decoder"]["layers"][name]["kernel"],
      before["decoder"]["layers"][name]["kernel"] + change,
      rtol=1e-6,
      atol=1e-7,
    )
  batch = packed.pack(CONFIG, make_rows(), 40)
  states = [
    np.asarray(run(*model, batch)) for model in ((CONFIG, params), (config, merged))
  ]
  np.testing.assert_allclose(*states, atol=1e-5)
  assert (
    np.abs(states[0] - run(BASE, {k: params[k] for k in merged}, batch)).max() > 0.1
  )


def test_a_sample_does_not_change_a_bit_of_its_neighbours():
  params, rows = packed.random_params(CONFIG), make_rows()
  batch = packed.pack(CONFIG, rows, 40)
  before = np.asarray(run(CONFIG, params, batch))
  rows[0][1] = (rows[0][1][0][::-1].copy(), None)
  after = np.asarray(run(CONFIG, params, packed.pack(CONFIG, rows, 40)))
  other = batch.segments != 2
  other[1] = True
  np.testing.assert_array_equal(before[other], after[other])
  assert (before[~other] != after[~other]).any()


def test_branches_of_a_shared_trunk_read_as_if_alone():
  params = packed.random_params(CONFIG)
  rng = np.random.default_rng(2)
  trunk, first, second = (rng.integers(5, 40, size) for size in (7, 5, 6))
  layout = trees.lay_out([[(7, [5, 6])]], 24)
  tokens = np.zeros((1, 24), int)
  tokens[0, :18] = np.concatenate([trunk, first, second])
  row = packed.pack(CONFIG, [[(tokens[0], None)]], 24)
  shared = run(
    CONFIG,
    params,
    row._replace(
      segments=layout.segments, positions=layout.positions, prefixes=layout.prefixes
    ),
  )
  for branch, start in ((first, 7), (second, 12)):
    sample = np.concatenate([trunk, branch])
    alone = run(CONFIG, params, packed.pack(CONFIG, [[(sample, None)]], 24))
    np.testing.assert_allclose(
      shared[0, start : start + len(branch)], alone[0, 7 : len(sample)], atol=1e-5
    )


def test_the_adapter_is_sharded_and_merged_where_it_lies():
  params = packed.random_params(CONFIG)
  rows = make_rows() * 4
  batch = packed.pack(CONFIG, rows, 40)
  alone = run(CONFIG, params, batch)
  mesh = sharding.make_mesh(2, 2, 2)
  layout = sharding.parameter_shardings(params, axes.logical_axes(params), mesh)
  spec = {
    (name, part): tuple(own.spec)
    for name, module in layout["adapter"]["layers"].items()
    for part, own in module.items()
  }
  assert spec["query", "lora_a"] == spec["up", "lora_a"] == (None, "fsdp", None)
  assert spec["query", "lora_b"] == spec["up", "lora_b"] == (None, "fsdp", "tensor")
  assert spec["out", "lora_a"] == spec["down", "lora_a"] == (None, "tensor", "fsdp")
  assert spec["out", "lora_b"] == spec["down", "lora_b"] == (None, None, "fsdp")
  spread = jax.device_put(params, layout)
  with sharding.use(mesh):
    states = jax.jit(mllm.hidden_states, static_argnums=0)(
      CONFIG, spread, sharding.put_rows(batch, mesh)
    )
    merged = lora.merge(CONFIG, spread)[1]
  np.testing.assert_allclose(states, alone, atol=1e-5)
  kernel = merged["decoder"]["layers"]["gate"]["kernel"]
  assert kernel.sharding == layout["decoder"]["layers"]["gate"]["kernel"]
  whole = lora.merge(CONFIG, params)[1]["decoder"]["layers"]["gate"]["kernel"]
  np.testing.assert_allclose(kernel, whole, rtol=1e-6, atol=1e-7)


def test_half_precision_is_near():
  params, batch = packed.random_params(CONFIG), packed.pack(CONFIG, make_rows(), 40)
  half = run(dataclasses.replace(CONFIG, dtype="bfloat16"), params, batch)
  error = np.abs(run(CONFIG, params, batch) - half.astype(np.float32))
  assert half.dtype == "bfloat16" and 0 < error[batch.segments > 0].mean() < 0.03


@pytest.mark.parametrize("wrong", [(0, 1.0), (-1, 1.0), (4, 0.0)])
def test_a_wrong_rank_or_alpha_is_refused(wrong):
  with pytest.raises(InputError, match="rank must be 1 or more"):
    LoraConfig(*wrong)
