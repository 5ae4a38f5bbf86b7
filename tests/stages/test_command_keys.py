"""The config keys that the help of a command lists, against those that it reads."""

import pytest

from mllm_selector_jax.runs import context
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.usage import help_text
from tests import small_run
from tests.recorded_config import RecordedConfig

# In this order each finds what it needs. `run` and `compare` then find most of it done.
ORDER = (
  *("check", "prepare", "plan", "align", "seed", "score", "select", "tune", "evaluate"),
  *("report", "explain", "measure", "export-selection", "run", "compare"),
)
SETTINGS = {
  "pool.demo.rows": 60,
  "align.rows": "20",
  "compare.strategies": "random",
  "compare.budgets": "25%",
  "compare.seeds": "0",
  "compare.full": False,
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


def test_every_command_is_run_here():
  assert set(ORDER) == set(COMMANDS)
