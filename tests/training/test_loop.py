import dataclasses

import jax
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import attention, mllm
from mllm_selector_jax.models.lora_options import MODULES, LoraConfig
from mllm_selector_jax.training import loop
from mllm_selector_jax.training.optimizer_options import OptimizerOptions
from mllm_selector_jax.types import InputError, RunError, Stopped
from tests.training import toy

OPTIONS = loop.LoopOptions(OptimizerOptions(1e-2, warmup=0.1), save_every=2)


def train(batches, mesh=None, options=OPTIONS, config=toy.CONFIG, **kwargs):
  mesh = mesh or sharding.make_mesh(1, devices=jax.devices()[:1])
  params = mllm.init(toy.CONFIG, 0)
  if config.lora is not None:
    _, params = mllm.add_adapter(toy.CONFIG, params, config.lora, seed=1)
  return loop.train(
    config,
    params,
    batches.to_grain(),
    len(batches),
    options,
    mesh,
    **kwargs,
  )


def test_loss_falls_and_every_step_is_told():
  batches = toy.make_batches(epochs=6)
  seen = []
  _, metrics = train(batches, progress=lambda done, total: seen.append((done, total)))
  assert seen == [(i + 1, 24) for i in range(24)]
  assert [line["step"] for line in metrics] == list(range(1, 25))
  assert metrics[-1]["loss"] < 0.9 * metrics[0]["loss"]


@pytest.mark.parametrize(("parts", "shape"), [(3, (1, 1, 1)), (2, (2, 2, 2))])
def test_micro_batches_add_up_to_the_batch(parts, shape):
  mesh = sharding.make_mesh(*shape, devices=jax.devices()[: np.prod(shape)])
  ways = sharding.row_ways(mesh)
  # A calm recipe: a wild one magnifies the rounding of one step in the next ones.
  options = loop.LoopOptions(OptimizerOptions(2e-3, warmup=0.1))
  _, whole = train(toy.make_batches(multiple=ways), mesh, options)
  options = dataclasses.replace(options, accumulate=parts)
  batches = toy.make_batches(multiple=parts * ways)
  # The parts are not alike: a mean of their means would be another loss.
  assert len(set(batches[0][0].weights.sum(-1).tolist())) > 1
  _, split = train(batches, mesh, options)
  for name in ("loss", "grad_norm"):
    np.testing.assert_allclose(
      [line[name] for line in split], [line[name] for line in whole], rtol=1e-5
    )


def test_twenty_steps_agree_on_three_meshes():
  batches = toy.make_batches(epochs=5, multiple=8)
  assert len(batches) == 20
  _, alone = train(batches)
  for shape in ((8, 1, 1), (2, 4, 1), (2, 2, 2)):
    _, spread = train(batches, sharding.make_mesh(*shape))
    np.testing.assert_allclose(
      [line["loss"] for line in spread], [line["loss"] for line in alone], rtol=1e-5
    )


@pytest.mark.parametrize(
  ("modules", "trainable"), [(("decoder",), "decoder"), (tuple(MODULES), "all")]
)
def test_an_adapter_is_trained_on_a_mesh_and_the_base_stays(modules, trainable):
  batches = toy.make_batches(multiple=8)
  base, lora = mllm.init(toy.CONFIG, 0), LoraConfig(4, 8.0, modules)
  config, params = mllm.add_adapter(toy.CONFIG, base, lora, seed=1)
  options = dataclasses.replace(OPTIONS, trainable=trainable)
  mesh = sharding.make_mesh(2, 2, 2)
  found = []
  for own in (sharding.make_mesh(1, devices=jax.devices()[:1]), mesh):
    given = config, params, batches.to_grain(), len(batches), options, own
    found.append(loop.train(*given))
  (alone, metrics), (spread, on_mesh) = found
  np.testing.assert_allclose(
    [line["loss"] for line in on_mesh], [line["loss"] for line in metrics], rtol=1e-5
  )
  assert metrics[-1]["loss"] < metrics[0]["loss"]
  for name in {"vision", "decoder"} | ({"projector"} & {*modules}):
    jax.tree.map(np.testing.assert_array_equal, alone[name], base[name])
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), params, alone)["adapter"]
  assert all(jax.tree.leaves(moved))
  assert spread["adapter"]["layers"]["down"]["lora_a"].sharding.spec[1] == "tensor"


@pytest.mark.parametrize("modules", [(), tuple(MODULES)])
@pytest.mark.parametrize("stops", [(3,), (1, 4, 6)])
def test_interrupted_training_ends_bit_identical(tmp_path, stops, modules):
  batches = toy.make_batches()
  given = {}
  if modules:
    lora = LoraConfig(4, 8.0, modules)
    given["config"] = dataclasses.replace(toy.CONFIG, lora=lora)
    given["options"] = dataclasses.replace(OPTIONS, trainable="all")
  whole, wanted = train(batches, **given)
  for stop in stops:
    seen = []
    with pytest.raises(Stopped):
      train(
        batches,
        folder=tmp_path,
        progress=lambda done, total, seen=seen: seen.append(done),
        stopped=lambda stop=stop, seen=seen: seen[-1] >= stop,
        **given,
      )
  resumed, metrics = train(batches, folder=tmp_path, **given)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)
  assert metrics == wanted


def test_a_fast_kernel_is_checked_on_the_first_batch(tmp_path, monkeypatch):
  config = dataclasses.replace(toy.CONFIG, attention="splash")
  batches, warnings, used = toy.make_batches(row_length=128), [], []
  _, wanted = train(batches)
  make = attention.make_attend
  monkeypatch.setattr(
    attention,
    "make_attend",
    lambda kernel, layout: used.append(kernel) or make(kernel, layout),
  )
  monkeypatch.setitem(
    attention.KERNELS,
    "splash",
    lambda layout: attention.KERNELS["xla"](
      layout and layout._replace(segments=layout.segments * 0 + 1)
    ),
  )
  _, metrics = train(batches, config=config, folder=tmp_path, warn=warnings.append)
  assert "splash" in used and len(warnings) == 1
  assert "'splash' differs from 'xla' on the first batch" in warnings[0]
  assert metrics == wanted  # no batch was lost to the check


def test_a_loss_that_is_not_finite_names_the_rows(tmp_path):
  options = loop.LoopOptions(
    OptimizerOptions(1e30, warmup=0.0, clip=1e30), save_every=1
  )
  batches = toy.make_batches(epochs=4)
  with pytest.raises(RunError, match=r"Its 6 samples: rows \[") as error:
    train(batches, options=options, folder=tmp_path)
  assert "step" in str(error.value)


def test_a_spike_names_the_rows_and_a_fall_is_none():
  batches = toy.make_batches(epochs=6)
  options = loop.LoopOptions(OptimizerOptions(1e-2, warmup=0.1), spike=1.5)
  _, metrics = train(batches, options=options)
  assert len(metrics) == len(batches)
  wild = dataclasses.replace(options, optimizer=OptimizerOptions(3.0, warmup=0.0))
  with pytest.raises(RunError, match=r"1.5 \(spike\) times .* 6 samples: rows \["):
    train(batches, options=wild)


def test_every_step_is_observed_with_its_work():
  batches, seen = toy.make_batches(), []
  _, metrics = train(batches, observe=seen.append)
  assert [one.metrics for one in seen] == metrics
  for one, (batch, _) in zip(seen, batches, strict=True):
    assert one.work.tokens == (batch.segments > 0).sum() < one.work.places
    assert one.seconds >= one.waited >= 0 and one.work.flops > 0


def test_half_precision_leaves_the_weights_and_moments_whole():
  config = dataclasses.replace(toy.CONFIG, dtype="bfloat16")
  batches = toy.make_batches(epochs=1)
  params, metrics = train(batches, config=config)
  _, exact = train(batches)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
  losses, wanted = ([line["loss"] for line in m] for m in (metrics, exact))
  assert losses != wanted
  np.testing.assert_allclose(losses, wanted, rtol=0.02)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
  batches = toy.make_batches(epochs=1)
  train(batches, folder=tmp_path)
  other = dataclasses.replace(
    toy.CONFIG, decoder=dataclasses.replace(toy.CONFIG.decoder, mlp=24)
  )
  given = other, mllm.init(other, 0), batches.to_grain(), len(batches), OPTIONS
  mesh = sharding.make_mesh(1, devices=jax.devices()[:1])
  with pytest.raises(InputError, match=r"another model: .*\[2, 32, 16\].*\[2, 24"):
    loop.train(*given, mesh, folder=tmp_path)
