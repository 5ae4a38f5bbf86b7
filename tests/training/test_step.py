import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.lora_options import MODULES, LoraConfig
from mllm_selector_jax.training import optimizer as optimizers
from mllm_selector_jax.training import optimizer_options, train_step
from mllm_selector_jax.types import InputError
from tests.models import native_inputs, packed
from tests.training import toy

EVERY = LoraConfig(2, 4.0, tuple(MODULES))


def full_logits_loss(params, batch):
  """The oracle: logits of every position, a plain softmax, a plain mean."""
  hidden = mllm.hidden_states(toy.CONFIG, params, batch)
  logits = np.asarray(hidden @ mllm.head(toy.CONFIG, params), np.float64)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  log_probs = log_probs.reshape(len(batch.predict), -1, logits.shape[-1])
  losses = [
    -log_probs[shard, batch.predict[shard, t], batch.targets[shard, t]]
    for shard in range(len(batch.predict))
    for t in range(batch.predict.shape[1])
    if batch.weights[shard, t]
  ]
  return np.mean(losses)


def test_loss_is_the_mean_over_supervised_tokens():
  params = mllm.init(toy.CONFIG, 0)
  batch, _ = toy.make_batches()[0]
  np.testing.assert_allclose(
    train_step.batch_loss(toy.CONFIG, params, batch),
    full_logits_loss(params, batch),
    rtol=1e-5,
  )


def test_packing_changes_neither_loss_nor_gradient():
  params = mllm.init(toy.CONFIG, 0)
  found = []
  for row_length in (14, 64):
    batch, _ = toy.make_batches(row_length=row_length)[0]
    found.append(
      jax.value_and_grad(lambda p, b=batch: train_step.batch_loss(toy.CONFIG, p, b))(
        params
      )
    )
  assert found[0][1].keys() == found[1][1].keys()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), *found
  )


def test_packing_changes_no_gradient_of_a_native_tower_s_adapters():
  config = packed.dataclasses.replace(packed.NATIVE, lora=EVERY)
  params = packed.random_params(config)
  rng = np.random.default_rng(0)
  parts = ((3, (2, 3), 4), (5,), ((1, 2), 6, (3, 3), 2))
  samples = [native_inputs.draw_sample(config, rng, part) for part in parts]
  rows = [samples], *([[sample]] for sample in samples)

  @jax.grad
  def find(adapter, batch):
    whole = {**params, "adapter": adapter}
    # A batch's loss is a mean over its supervised tokens.
    return train_step.batch_loss(config, whole, batch) * batch.weights.sum()

  together, *apart = (
    find(params["adapter"], native_inputs.pack_rows(config, row, 64)) for row in rows
  )
  total = jax.tree.map(lambda *gradients: sum(gradients), *apart)
  for part in ("layers", "projector", "vision"):
    size = max(np.abs(x).max() for x in jax.tree.leaves(total[part]))
    assert size > 1e-3
    jax.tree.map(
      lambda a, b, s=size: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * s),
      together[part],
      total[part],
    )


@pytest.mark.parametrize("trainable", optimizer_options.TRAINABLE)
def test_only_the_trainable_part_changes(trainable):
  params = mllm.init(toy.CONFIG, 0)
  part, frozen = train_step.split_params(params, trainable)
  assert {*part, *frozen} == {*params} and part
  options = optimizers.OptimizerOptions(1e-2)
  optimizer = optimizers.make_optimizer(options, 10)
  part = jax.tree.map(jnp.copy, part)
  before = jax.tree.map(np.asarray, part)
  state = train_step.State(part, optimizer.init(part))
  step_fn = train_step.make_train_step(toy.CONFIG, optimizer)
  for batch, _ in toy.make_batches()[:2]:
    state, metrics = step_fn(state, frozen, jax.tree.map(jnp.asarray, batch))
  assert np.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0
  changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, state.params)
  assert any(jax.tree.leaves(changed)) and state.params.keys() == part.keys()


def test_an_adapter_takes_the_decoder_s_place_and_the_base_has_no_state():
  base = mllm.init(toy.CONFIG, 0)
  _, params = mllm.add_adapter(toy.CONFIG, base, LoraConfig(2, 4.0), seed=0)
  part, frozen = train_step.split_params(params, "decoder")
  assert part.keys() == {"projector", "adapter"}
  assert frozen.keys() == {"vision", "decoder"}
  optimizer = optimizers.make_optimizer(optimizers.OptimizerOptions(1e-2), 10)
  state = jax.eval_shape(optimizer.init, part)
  shapes = sorted(x.shape for x in jax.tree.leaves(part))
  moments = sorted(x.shape for x in jax.tree.leaves(state) if x.shape)
  assert moments == sorted(shapes * 2)


@pytest.mark.parametrize(
  ("modules", "trainable", "whole"),
  [
    (("decoder", "tower"), "all", {"projector"}),
    (("decoder", "projector"), "decoder", set()),
    (("projector",), "projector", set()),
    (tuple(MODULES), "all", set()),
  ],
)
def test_adapters_take_the_places_of_all_parts_that_have_them(
  modules, trainable, whole
):
  base = mllm.init(toy.CONFIG, 0)
  lora = LoraConfig(2, 4.0, modules)
  _, params = mllm.add_adapter(toy.CONFIG, base, lora, seed=0)
  part, frozen = train_step.split_params(params, trainable)
  assert part.keys() == {"adapter", *whole}
  assert frozen.keys() == {"vision", "projector", "decoder"} - whole


def test_a_projector_s_adapters_have_its_rate():
  _, params = mllm.add_adapter(toy.CONFIG, mllm.init(toy.CONFIG, 0), EVERY, seed=0)
  adapter = {"adapter": jax.tree.map(jnp.ones_like, params["adapter"])}
  moved = []
  for rate in (None, 1e-4):
    options = optimizers.OptimizerOptions(1e-3, 0.0, projector_learning_rate=rate)
    optimizer = optimizers.make_optimizer(options, 10)
    state = optimizer.init(adapter)
    for _ in range(2):  # the first step's rate is 0
      updates, state = optimizer.update(adapter, state, adapter)
    moved.append(updates["adapter"])
  same, less = moved
  factors = jax.tree.map(lambda a, b: float((b / a).mean()), same, less)
  for part, wanted in (("layers", 1.0), ("vision", 1.0), ("projector", 0.1)):
    np.testing.assert_allclose(jax.tree.leaves(factors[part]), wanted, rtol=1e-5)


def test_the_projector_can_have_its_own_rate():
  params = {"projector": jnp.ones((3, 3)), "adapter": jnp.ones((3, 3))}
  gradient = {name: jnp.full((3, 3), 0.1) for name in params}
  moved = {}
  for own in (None, 1e-3):
    options = optimizers.OptimizerOptions(
      2e-3, weight_decay=0.1, projector_learning_rate=own
    )
    optimizer = optimizers.make_optimizer(options, 10)
    state, new = optimizer.init(params), params
    for _ in range(3):
      updates, state = optimizer.update(gradient, state, params)
      new = optax.apply_updates(new, updates)
    moved[own] = {name: 1 - np.asarray(new[name]) for name in params}
  np.testing.assert_array_equal(moved[None]["projector"], moved[None]["adapter"])
  np.testing.assert_array_equal(moved[1e-3]["adapter"], moved[None]["adapter"])
  np.testing.assert_allclose(
    moved[1e-3]["projector"], moved[None]["projector"] / 2, rtol=1e-4
  )


def test_an_unknown_trainable_set_names_the_known_ones():
  with pytest.raises(InputError, match="projector, decoder, decoder_only, all"):
    train_step.split_params({}, "vision")


def test_schedule_rises_to_its_peak_and_falls_to_zero():
  options = optimizers.OptimizerOptions(2e-3, warmup=0.1)
  schedule = optimizers.make_schedule(options, 100)
  np.testing.assert_allclose(schedule(0), 0.0)
  np.testing.assert_allclose(schedule(5), 2e-3 * 5 / 10, rtol=1e-6)
  np.testing.assert_allclose(schedule(10), 2e-3, rtol=1e-6)
  cosine = 2e-3 * 0.5 * (1 + np.cos(np.pi * (55 - 10) / 90))
  np.testing.assert_allclose(schedule(55), cosine, rtol=1e-6)
  np.testing.assert_allclose(schedule(100), 0.0, atol=1e-12)


def test_decay_spares_norms_and_biases_of_stacked_layers():
  options = optimizers.OptimizerOptions(1.0, warmup=0.0, weight_decay=0.5, clip=1e9)
  params = {
    "layers": {"kernel": jnp.ones((2, 3, 3)), "scale": jnp.ones((2, 3))},
    "head": jnp.ones((3, 3)),
    "bias": jnp.ones(3),
  }
  zeros = jax.tree.map(jnp.zeros_like, params)
  optimizer = optimizers.make_optimizer(options, 10)
  state = optimizer.init(params)
  for _ in range(2):  # the first step's rate is 0
    updates, state = optimizer.update(zeros, state, params)
  new = optax.apply_updates(params, updates)
  assert (new["head"] < 1).all() and (new["layers"]["kernel"] < 1).all()
  assert (new["bias"] == 1).all() and (new["layers"]["scale"] == 1).all()


@pytest.mark.parametrize(
  "wrong",
  [
    {"learning_rate": 0},
    {"learning_rate": 1, "warmup": 1},
    {"learning_rate": 1, "first_moment": "float16"},
    {"learning_rate": 1, "projector_learning_rate": 0},
  ],
)
def test_a_wrong_recipe_is_refused(wrong):
  with pytest.raises(InputError):
    optimizers.OptimizerOptions(**wrong)


def test_the_first_moment_can_be_kept_in_half_the_bytes():
  params = {"decoder": jnp.linspace(0.5, 1.0, 12).reshape(3, 4)}
  moved, found = {}, {}
  for kind in optimizer_options.MOMENTS:
    options = optimizers.OptimizerOptions(1e-2, first_moment=kind)
    optimizer = optimizers.make_optimizer(options, 50)
    state, new = optimizer.init(params), params
    for _ in range(20):
      gradient = jax.tree.map(lambda x: 0.1 * jnp.sin(40 * x), new)
      updates, state = optimizer.update(gradient, state, new)
      new = optax.apply_updates(new, updates)
    found[kind] = [leaf.dtype.name for leaf in jax.tree.leaves(state) if leaf.ndim]
    moved[kind] = np.asarray(new["decoder"])
  assert found == {
    "float32": ["float32", "float32"],
    "bfloat16": ["bfloat16", "float32"],
  }
  assert moved["bfloat16"].dtype == np.float32
  difference = np.abs(moved["bfloat16"] - moved["float32"]).max()
  assert 0 < difference < 0.02 * np.abs(moved["float32"] - params["decoder"]).max()
