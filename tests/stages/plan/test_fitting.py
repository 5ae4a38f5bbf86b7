"""Settings with which a run fits, and the command that has them."""

import dataclasses

import pytest

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.planning import advice, fitting, topology
from mllm_selector_jax.planning.pool_figures import find_pool
from mllm_selector_jax.planning.run_steps import CompiledStep
from tests import small_run
from tests.models import tiny
from tests.stages.plan.test_programs import CHIP, make_recipe, program_of

FIGURES = {"plan.rows": 200, "plan.tokens": 60.0, "tune.batch": 32, "seed.batch": 32}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  return tiny.make_base(tmp_path_factory.mktemp("models") / "base")


def test_settings_are_changed_until_all_steps_fit(base, tmp_path, monkeypatch):
  monkeypatch.setattr(topology, "_has_gpu_compiler", lambda: False)
  found = topology.describe("h100-2")
  with small_run.open_run(tmp_path / "work", base, **FIGURES) as run:
    config, pool = huggingface.read_config(base), find_pool(run).table
    said = []
    wide = fitting.find_fit(run, config, pool, found, said.append)
    assert wide.fits and wide.changes == {}
    assert list(wide.steps) == ["tune", "score"]  # the seed's step is the tune's
    needed = wide.steps["tune"].program.memory.total
    narrow = dataclasses.replace(found, memory=0.6 * needed)
    fit = fitting.find_fit(run, config, pool, narrow, said.append)
  assert fit.fits and fit.changes
  # The demo's mesh is of copies; these come first, and leave the result as it is.
  assert list(fit.changes)[:2] == ["mesh.data", "mesh.fsdp"]
  for step in fit.steps.values():
    assert step.program.memory.total <= narrow.memory
  changed = "Changing mesh.data=1, mesh.fsdp=2"
  assert changed in said and any("does NOT fit" in line for line in said)


def fit_of(program, **changes):
  settings = advice.Settings(
    {"data": 1, "fsdp": 8, "tensor": 1}, "full", make_recipe(**changes), "tune", 10**9
  )
  return fitting.Fit(CHIP, {}, {"tune": CompiledStep(program, 1.0, settings)})


def test_the_change_is_as_large_as_the_lack():
  # 16e9 bytes hold 1e9 of arguments and 15e9 of temporaries, an eighth of 100e9.
  fit = fit_of(program_of(10**9, 100 * 10**9))
  assert fitting._find_change(fit) == ("tune", {"tune.accumulate": 8})
  fit = fit_of(program_of(17 * 10**9, 10**9))
  assert fitting._find_change(fit) == ("tune", {"tune.first_moment": "bfloat16"})
  fit = fit_of(program_of(17 * 10**9, 10**9), first_moment="bfloat16")
  _, values = fitting._find_change(fit)
  assert values == {"tune.lora.rank": 128, "tune.learning_rate": 2e-4}
  assert fitting._find_change(fit_of(program_of(10**9, 10**9))) is None


def test_larger_devices_hold_the_arguments_in_half_of_their_memory():
  # Eight times 17e9 bytes are 136e9; 16 devices of 16e9 hold 128e9 in half of it.
  assert fitting.find_larger(fit_of(program_of(17 * 10**9, 10**9))) == "v5e-32"
  assert fitting.find_larger(fit_of(program_of(10**15, 10**9))) is None


@pytest.mark.parametrize(
  ("words", "command"),
  [
    (
      "plan --config=demo --workdir=a --config.plan.rows=5 --config.tune.batch=8",
      "--config=demo --workdir=a --config.tune.batch=8 --config.mesh.fsdp=4",
    ),
    (
      "plan --config demo --workdir a --config.mesh.fsdp 2 --force",
      "--config demo --workdir a --force --config.mesh.fsdp=4",
    ),
    ("-x tests", "--config.mesh.fsdp=4"),
  ],
)
def test_the_command_has_what_was_given_and_what_was_changed(words, command):
  arguments = ["somewhere/mllm-selector", *words.split()]
  found = fitting.format_command(arguments, {"mesh.fsdp": 4}, "tpu")
  assert found == f"mllm-selector {command}"
  found = fitting.format_command(arguments, {"mesh.fsdp": 4}, "gpu")
  assert found == f"XLA_PYTHON_CLIENT_MEM_FRACTION=0.9 mllm-selector {command}"
