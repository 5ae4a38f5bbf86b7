"""The real steps compiled for devices that are not there, beside real arrays."""

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.configs import default
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.planning import advice, programs, topology
from mllm_selector_jax.scoring.engine import ScoreOptions
from mllm_selector_jax.training import optimizer, train_step
from mllm_selector_jax.types import InputError
from tests.scoring.pools import make_pool
from tests.training import toy

CONFIG = dataclasses.replace(
  toy.CONFIG,
  remat="full",
  dtype="bfloat16",
  decoder=dataclasses.replace(toy.CONFIG.decoder, layers=6),
)
POOL = make_pool(64).table
MESH = {"data": 1, "fsdp": -1, "tensor": 1}


def make_recipe(**changes):
  section = default.get_config().tune
  section.batch, section.row_length = 16, 128
  for name, value in changes.items():
    setattr(section, name, value)
  return section


def compile_train(mesh, platform, config=CONFIG, **changes):
  rows = np.arange(64)
  given = "tune", config, make_recipe(**changes), POOL, rows, mesh, platform
  return programs.compile_train(*given)


@pytest.fixture(scope="module")
def tpu():
  """A slice of v5e, and the mesh over it."""
  if importlib.util.find_spec("libtpu") is None:
    pytest.skip("libtpu, the TPU compiler (680 MB), is not installed: the extra 'tpu'")
  found = topology.describe("v5e-4")
  return found, sharding.make_mesh(**MESH, devices=list(found.devices))


def test_train_and_score_steps_compile_for_a_tpu(tpu):
  found, mesh = tpu
  program = compile_train(mesh, found.platform, accumulate=2)
  assert advice.does_fit(program, found) and program.memory.temporaries > 0
  # The batch's small arrays are padded to the TPU's tiles.
  assert program.memory.arguments >= 0.9 * program.arguments
  assert program.collectives["all-gather"] > 0 and program.executed > 0
  score, layout = programs.compile_score(
    CONFIG, ScoreOptions(128, 8), POOL, np.arange(64), mesh, found.platform
  )
  assert layout.shape.trunks and advice.does_fit(score, found)
  assert 0 < score.executed < program.executed


@pytest.mark.parametrize("name", ["h100-2", "h200-8"])
def test_train_and_score_steps_compile_for_gpus(name):
  found = topology.describe(name)
  if not found.exact:
    pytest.skip(
      "jax's CUDA plug-in, the GPU compiler, is not installed: the extra 'cuda12'"
    )
  mesh = sharding.make_mesh(**MESH, devices=list(found.devices))
  program = compile_train(mesh, found.platform, accumulate=2)
  assert advice.does_fit(program, found) and program.memory.temporaries > 0
  # What a step does not read, such as the places of answers, is no argument.
  assert program.memory.arguments >= 0.9 * program.arguments
  assert program.collectives["all-gather"] > 0 and program.executed > 0
  score, layout = programs.compile_score(
    CONFIG, ScoreOptions(128, 8), POOL, np.arange(64), mesh, found.platform
  )
  assert layout.shape.trunks and advice.does_fit(score, found)
  assert 0 < score.executed < program.executed


def test_a_tpu_runs_splash_and_refuses_what_does_not_fit(tpu):
  found, mesh = tpu
  assert programs.choose_attention(CONFIG, "tpu").attention == "splash"
  assert programs.choose_attention(CONFIG, "gpu").attention == "xla"
  decoder = dataclasses.replace(CONFIG.decoder, vocab=2**20, width=8192)
  huge = dataclasses.replace(CONFIG, decoder=decoder)
  program = compile_train(mesh, found.platform, huge, trainable="all")
  assert program.memory is None and not advice.does_fit(program, found)
  own = advice.Settings(dict(mesh.shape), "full", make_recipe(), "tune", 10**10)
  said = advice.describe(program, found, 1.0, own)
  assert "does NOT fit" in said and "of 15.8 GiB" in said and "change: " in said


def test_arguments_are_those_of_real_arrays():
  """What is described lies and weighs as what a training holds."""
  mesh = sharding.make_mesh(2, 2, 1, devices=jax.devices()[:4])
  recipe = make_recipe()
  recipe.lora.rank = 4
  config, params = toy.CONFIG, mllm.init(toy.CONFIG, 0)
  given = recipe, POOL, np.arange(64), mesh, "gpu"
  program = programs.compile_train("tune", config, *given)
  config, params = mllm.add_adapter(config, params, LoraConfig(4, 256.0), 0)
  layout = jax.tree.map(lambda x: x.sharding, programs.abstract_params(config, mesh))
  trained, frozen = train_step.split_params(jax.device_put(params, layout), "decoder")
  made = optimizer.make_optimizer(optimizer.OptimizerOptions(1e-3), 4)
  state, _ = train_step.init_state(made, trained)
  batch = programs.abstract_batch(program.shape, mesh)
  held = sum(
    x.addressable_shards[0].data.nbytes for x in jax.tree.leaves((state, frozen))
  )
  held += sum(
    np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in jax.tree.leaves(batch)
  )
  assert program.arguments == held
  # On CPUs nothing is padded; what the step does not read is dropped (answers, and
  # the vision layers behind the projected one stay).
  np.testing.assert_allclose(program.memory.arguments, held, rtol=0.02)


def test_a_described_batch_is_an_assembled_one():
  batch, _ = toy.make_batches(multiple=4)[0]
  shape = toy.make_batches(multiple=4).shape
  described = programs.abstract_batch(shape, sharding.make_mesh(2, 2, 2))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), batch) == jax.tree.map(
    lambda x: (x.shape, x.dtype), described
  )


def test_a_refusal_is_read():
  text = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO"
    " temporaries (20.16G) exceeds available HBM (15.75G).\nmore"
  )
  needed, words = programs.read_refusal(text, 2**30)
  np.testing.assert_allclose(needed, 21.16 * 2**30)
  assert words.endswith("(15.75G).")
  text = "RESOURCE_EXHAUSTED: XLA: Ran out of memory. Used 512.5M of 15.75G hbm."
  assert programs.read_refusal(text, 2**30)[0] == 512.5 * 2**20
  assert programs.read_refusal("RESOURCE_EXHAUSTED: too much", 0) == (None, "too much")


def program_of(arguments, temporaries, rows=64, shards=8):
  shape = dataclasses.replace(toy.make_batches().shape, rows=rows, shards=shards)
  memory = programs.Memory(arguments, temporaries, 0, 0)
  return programs.Program(
    "tune", 9, shape, memory, arguments, None, "", 2.0, 1.0, {}, 1.0
  )


CHIP = topology.Topology("v5e-8", "TPU v5 lite", "tpu", 16e9, 197e12, (None,) * 8, True)


def test_what_fits_needs_no_change_and_what_does_not_names_settings():
  settings = advice.Settings(
    {"data": 2, "fsdp": 4, "tensor": 1}, "none", make_recipe(), "tune", 4 * 10**9
  )
  assert advice.suggest(program_of(10**9, 10**9), CHIP, settings) == []
  said = "\n".join(advice.suggest(program_of(10**9, 20 * 10**9), CHIP, settings))
  for words in ("mesh.fsdp=8", "model.remat=full", "tune.accumulate=2", "lora.rank"):
    assert words in said
  assert "tune.first_moment=bfloat16: about 953.7 MiB" in said  # 2 bytes of 4e9 / 8
  assert "more devices" not in said
  said = "\n".join(advice.suggest(program_of(24 * 10**9, 10**9), CHIP, settings))
  assert "more devices: 24 hold" in said and "accumulate" not in said
  scoring = advice.Settings({"data": 1, "fsdp": 8, "tensor": 1}, "full")
  said = advice.suggest(program_of(10**9, 20 * 10**9), CHIP, scoring)
  assert said == ["  change: score.batch_rows=32: fewer packed rows per step"]


def test_a_mesh_that_does_not_divide_described_devices_is_refused():
  with pytest.raises(InputError, match="does not fill the 4 devices"):
    sharding.make_mesh(3, 1, 1, devices=jax.devices()[:4])
