"""A step is compiled once, and anew where something that decides it changes."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mllm_selector_jax import sharding
from mllm_selector_jax.planning import kept_programs, programs
from tests.stages.plan.test_programs import CONFIG, POOL, make_recipe
from tests.training import toy


def compile_product(side=8, **identity):
  """Compiles the product of a matrix with itself in the place of a step."""
  mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1])
  layout = NamedSharding(mesh, PartitionSpec())
  argument = jax.ShapeDtypeStruct((side, side), "float32", sharding=layout)
  shape = toy.make_batches().shape
  step = programs.Step(
    jax.jit(lambda x: x @ x), (argument,), 3, shape, {"side": side, **identity}
  )
  return programs._compile("tune", step, mesh)


def refuse(*_, **__):
  raise AssertionError("a kept step is compiled again")


def test_a_step_is_compiled_once(cache, monkeypatch):
  first = compile_product()
  assert not first.kept and first.executed == 2 * 8**3
  assert first.memory.arguments == 4 * 8**2
  assert len(list(cache.rglob("*.json"))) == 1
  monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
  again = compile_product()
  assert again.kept and dataclasses.replace(again, kept=False) == first
  with pytest.raises(AssertionError, match="compiled again"):
    compile_product(more=1)
  monkeypatch.setattr(kept_programs, "_version", lambda name: f"{name} of tomorrow")
  with pytest.raises(AssertionError, match="compiled again"):
    compile_product()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"memory": {"much": 1}}'])
def test_a_damaged_file_is_replaced(cache, text):
  compile_product()
  (path,) = cache.rglob("*.json")
  path.write_text(text)
  assert not compile_product().kept
  assert compile_product().kept


def test_a_folder_that_cannot_be_written_to_is_no_fault(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  assert not compile_product().kept


def test_what_decides_a_program_is_in_its_hash():
  def hash_step(devices=1, config=CONFIG, **changes):
    mesh = sharding.make_mesh(1, devices, 1, devices=jax.devices()[:devices])
    rows = np.arange(64)
    recipe = make_recipe(**changes)
    step = programs.describe_train(config, recipe, POOL, rows, mesh, "gpu")
    return kept_programs.hash_program(
      step.identity | {"devices": kept_programs.describe_devices(mesh.devices)}
    )

  same = hash_step()
  assert hash_step(save_every=7, keep=3, threads=0) == same
  others = [
    hash_step(devices=2),
    hash_step(accumulate=2),
    hash_step(trainable="projector"),
    hash_step(batch=32),
    hash_step(first_moment="bfloat16"),
    hash_step(config=dataclasses.replace(CONFIG, remat="none")),
  ]
  assert len({same, *others}) == 1 + len(others)
