import dataclasses
import functools

import jax
import numpy as np
import pytest
from flax import nnx

from mllm_selector_jax import sharding
from mllm_selector_jax.models import axes, lora, mllm
from mllm_selector_jax.models.lora_options import MODULES, LoraConfig
from mllm_selector_jax.types import InputError
from tests.models import native_inputs, packed, trees

CONFIG = packed.make_config(lora=LoraConfig(rank=4, alpha=8.0), decoder_qkv_bias=True)
BASE = dataclasses.replace(CONFIG, lora=None)
ALL = LoraConfig(rank=4, alpha=8.0, modules=tuple(MODULES))
# The second tower's query, key and value share an adapter, and its projector has
# mergers of further states.
CASES = {
  "decoder": CONFIG,
  "all": dataclasses.replace(CONFIG, lora=ALL),
  "all of native": dataclasses.replace(packed.NATIVE, lora=ALL),
  "all of gated": dataclasses.replace(packed.GATED, lora=ALL),
  "fused": packed.make_config(lora=CONFIG.lora, decoder_fused=("qkv", "gate_up")),
}
every_case = pytest.mark.parametrize("config", CASES.values(), ids=CASES)


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


def make_batch(config):
  if not config.vision.native:
    return packed.pack(config, make_rows(), 40)
  rng = np.random.default_rng(0)
  parts = ((3, (2, 3), 4), (5,), ((1, 2), 6))
  rows = [[native_inputs.draw_sample(config, rng, part) for part in parts]]
  return native_inputs.pack_rows(config, rows, 48)


def test_a_linear_layer_is_changed_by_the_scaled_product():
  rng = np.random.default_rng(0)
  layer = lora.AdaptedLinear(5, 7, CONFIG.lora, rngs=nnx.Rngs(0))
  down, up, bias = rng.normal(size=(5, 4)), rng.normal(size=(4, 7)), rng.normal(size=7)
  layer.lora_a[...], layer.lora_b[...], layer.bias[...] = down, up, bias
  x = rng.normal(size=(4, 5)).astype(np.float32)
  wanted = x @ (np.asarray(layer.kernel[...]) + 8.0 / 4 * down @ up) + bias
  np.testing.assert_allclose(layer(x), wanted, rtol=1e-5, atol=1e-5)


def test_layers_that_share_an_adapter_are_changed_as_one_is():
  rng = np.random.default_rng(0)
  shared = lora.SharedAdapter(5, (8, 3, 3), CONFIG.lora, np.float32)
  down, up = rng.normal(size=(5, 4)), rng.normal(size=(4, 14))
  shared.lora_a[...], shared.lora_b[...] = down, up
  x = rng.normal(size=(6, 5)).astype(np.float32)
  wanted = 8.0 / 4 * (x @ down @ up)
  assert [part.shape[1] for part in shared(x)] == [8, 3, 3]
  found = np.concatenate(shared(x), axis=-1)
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@every_case
def test_a_fresh_adapter_changes_no_bit(config):
  base = dataclasses.replace(config, lora=None)
  params = packed.random_params(base)
  found, adapted = mllm.add_adapter(base, params, config.lora, seed=1)
  assert found == config and "adapter" not in params
  batch = make_batch(config)
  np.testing.assert_array_equal(run(config, adapted, batch), run(base, params, batch))


def test_a_fresh_decoder_s_adapter_is_the_same_beside_others():
  params = packed.random_params(BASE)
  _, adapted = mllm.add_adapter(BASE, params, CONFIG.lora, seed=1)
  _, more = mllm.add_adapter(BASE, params, ALL, seed=1)
  assert adapted["adapter"].keys() == {"layers"}
  assert more["adapter"].keys() == {"layers", "projector", "vision"}
  layers = (found["adapter"]["layers"] for found in (adapted, more))
  jax.tree.map(np.testing.assert_array_equal, *layers)
  down = adapted["adapter"]["layers"]["down"]["lora_a"]
  bound = 1 / np.sqrt(CONFIG.decoder.mlp)
  assert down.shape == (2, 24, 4) and 0.8 * bound < np.abs(down).max() <= bound
  assert set(adapted["adapter"]["layers"]) == {
    "query", "key", "value", "out", "gate", "up", "down"
  }  # fmt: skip


@every_case
def test_what_is_attached_is_detached_again(config):
  params = mllm.abstract(config)
  base = mllm.abstract(dataclasses.replace(config, lora=None))
  assert lora.detach(lora.attach(params)) == params
  assert {part: params[part] for part in base} == base


SHARED = {"qkv": ("query", "key", "value"), "gate_up": ("gate", "up")}


def list_kernels(base, adapter):
  """Kernels with their own two matrices; those of shared adapters apart."""
  for name, own in adapter.items():
    if name in SHARED:
      widths = [base[layer]["kernel"].shape[-1] for layer in SHARED[name]]
      parts = np.split(own["lora_b"], np.cumsum(widths)[:-1], axis=-1)
      for layer, part in zip(SHARED[name], parts, strict=True):
        yield (layer, "kernel"), own["lora_a"], part
    elif "lora_a" in own:
      yield (name, "kernel"), own["lora_a"], own["lora_b"]
    else:
      for path, *matrices in list_kernels(base[name], own):
        yield (name, *path), *matrices


@every_case
def test_merged_kernels_compute_the_same(config):
  params = packed.random_params(config)
  before = jax.tree.map(np.asarray, params)
  base, merged = lora.merge(config, params)
  shapes = mllm.abstract(dataclasses.replace(config, lora=None))
  assert jax.tree.map(np.shape, merged) == jax.tree.map(np.shape, shapes)
  assert base.lora is None
  jax.tree.map(np.testing.assert_array_equal, params, before)
  changed = 0
  for part in lora.list_adapted(before["adapter"]):
    adapter = lora.pick(before["adapter"], part)
    for path, down, up in list_kernels(before[part], adapter):
      old, new = before[part], merged[part]
      for key in path:
        old, new = old[key], new[key]
      wanted = old + 2.0 * np.float64(down) @ np.float64(up)
      np.testing.assert_allclose(new, wanted, rtol=1e-6, atol=1e-6)
      changed += 1
  new = jax.tree.map(
    lambda a, b: bool((a != b).any()), merged, {part: before[part] for part in merged}
  )
  assert changed == sum(jax.tree.leaves(new))
  batch = make_batch(config)
  states = [
    np.asarray(run(*model, batch)) for model in ((config, params), (base, merged))
  ]
  np.testing.assert_allclose(*states, atol=1e-5)
  assert (
    np.abs(states[0] - run(base, {k: params[k] for k in merged}, batch)).max() > 0.1
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


def test_a_shared_adapter_is_cut_by_inputs_and_rank():
  config = CASES["all of native"]
  params = packed.random_params(config)
  mesh = sharding.make_mesh(2, 2, 2)
  layout = sharding.parameter_shardings(params, axes.logical_axes(params), mesh)
  own = layout["adapter"]["vision"]["layers"]["qkv"]
  assert tuple(own["lora_a"].spec) == (None, "fsdp", None)
  assert tuple(own["lora_b"].spec) == (None, "fsdp", None)
  with sharding.use(mesh):
    merged = lora.merge(config, jax.device_put(params, layout))[1]
  for part in ("vision", "projector"):
    whole = lora.merge(config, params)[1][part]
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
      merged[part],
      whole,
    )
    assert jax.tree.map(lambda x: x.sharding, merged[part]) == layout[part]


def test_half_precision_is_near():
  params, batch = packed.random_params(CONFIG), packed.pack(CONFIG, make_rows(), 40)
  half = run(dataclasses.replace(CONFIG, dtype="bfloat16"), params, batch)
  error = np.abs(run(CONFIG, params, batch) - half.astype(np.float32))
  assert half.dtype == "bfloat16" and 0 < error[batch.segments > 0].mean() < 0.03


@pytest.mark.parametrize("modules", [(), ("llm",), ("decoder", "vision")])
def test_what_cannot_have_adapters_is_refused(modules):
  with pytest.raises(InputError, match="allowed are decoder, projector, tower"):
    LoraConfig(4, 1.0, modules)


@pytest.mark.parametrize("wrong", [(0, 1.0), (-1, 1.0), (4, 0.0)])
def test_a_wrong_rank_or_alpha_is_refused(wrong):
  with pytest.raises(InputError, match="rank must be 1 or more"):
    LoraConfig(*wrong)
