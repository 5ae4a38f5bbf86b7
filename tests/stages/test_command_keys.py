"""The config keys that the help of a command lists, against those that it reads."""

import pathlib
import re

import pytest

import mllm_selector_jax
from mllm_selector_jax.runs import context
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.usage import help_text
from tests import small_run
from tests.recorded_config import RecordedConfig

PACKAGE = pathlib.Path(mllm_selector_jax.__file__).parent
# In this order each finds what it needs, and `run` finds all done. `compare` makes the
# same artifacts again, which is left to the other tests.
ORDER = (
  *("check", "prepare", "plan", "align", "seed", "score", "select", "tune", "evaluate"),
  *("report", "explain", "measure", "export-selection", "run"),
)
STAGES = ("check", "seed", "score", "select", "tune", "evaluate", "report")
# All trainings are alike, so that they are compiled once.
SETTINGS = {
  "pool.demo.rows": 60,
  "seed.rows": "15",
  "align.rows": "15",
  "align.batch": 32,
  "align.learning_rate": 1e-3,
  "align.warmup": 0.05,
  "align.weight_decay": 0.01,
  "align.b2": 0.99,
  "align.row_length": 80,
  "align.trainable": "decoder",
  "select.control": False,
}


@pytest.fixture(scope="module")
def read(base, tmp_path_factory):
  """The keys that each command reads in a tiny run, by the name of the command."""
  folder = tmp_path_factory.mktemp("keys") / "work"
  keys = {}
  for name in ORDER:
    seen = keys[name] = set()
    cfg = RecordedConfig(small_run.make_config(base, **SETTINGS), seen)
    asked = {"ids": ("row=0",)} if name == "explain" else {}
    if name == "measure":
      asked = {"lists": (str(folder / "arms/main/selection/selected.json"),)}
    with context.open_run(cfg, str(folder), **asked) as current:
      seen.clear()  # what opening a run reads, which all commands do
      import time

      t = time.process_time()
      COMMANDS[name](current)
      print(
        name,
        round(time.process_time() - t, 1),
        file=open("/tmp/w/cli/times", "a"),
        flush=True,
      )
  return keys


@pytest.mark.parametrize("command", ORDER)
def test_the_help_lists_all_keys_that_a_command_reads(read, command):
  listed = set(help_text.select_keys(COMMANDS[command].keys))
  assert read[command] - listed == set()


@pytest.mark.parametrize("command", ORDER)
def test_the_help_lists_no_section_that_a_command_does_not_read(read, command):
  if command == "run":
    pytest.skip("it has nothing left to tune or to plan here")
  unread = {
    name
    for name in COMMANDS[command].keys
    if not read[command] & set(help_text.select_keys([name]))
  }
  assert unread == set()


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_command_that_runs_stages_lists_their_keys(read, command):
  listed = set(help_text.select_keys(COMMANDS[command].keys))
  assert set().union(*(read[stage] for stage in STAGES)) - listed == set()


def test_compare_lists_the_sections_that_its_own_code_names():
  files = [*(PACKAGE / "comparison").glob("*.py"), PACKAGE / "stages/compare.py"]
  found = re.findall(r"cfg\.(\w+)", "".join(path.read_text() for path in files))
  assert "compare" in found and set(found) <= set(COMMANDS["compare"].keys)


def test_every_command_is_tested_here():
  assert {*ORDER, "compare"} == set(COMMANDS)
