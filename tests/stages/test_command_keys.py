"""The config keys that the help of a command lists, against those that it reads."""

import pathlib
import re

import pytest

import mllm_selector_jax
from mllm_selector_jax.configs import default
from mllm_selector_jax.runs import context
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.usage import help_text
from tests import small_run
from tests.recorded_config import RecordedConfig

PACKAGE = pathlib.Path(mllm_selector_jax.__file__).parent
# In this order each finds what it needs, and `run` finds all done.
ORDER = (
  *("check", "prepare", "seed", "score", "select", "tune", "evaluate", "report"),
  *("explain", "measure", "export-selection", "arms", "run", "clean"),
)
STAGES = ("check", "seed", "score", "select", "tune", "evaluate", "report")
# Commands that do what others do, or that take long: the rooms of their own code.
ROOMS = {"compare": "comparison", "plan": "planning"}
# The drawn questions have images of their own.
UNREAD = {"evaluate": {"pool.images", "pool.links"}}
SETTINGS = {"pool.demo.rows": 60, "seed.rows": "15"}


@pytest.fixture(scope="module")
def read(base, tmp_path_factory):
  """The keys that each command reads in a tiny run, by the name of the command."""
  folder = tmp_path_factory.mktemp("keys") / "work"
  keys = {}
  for name in ORDER:
    seen = keys[name] = set()
    cfg = RecordedConfig(small_run.make_config(base, **SETTINGS), seen)
    asked = {"ids": ("row=0",)} if name == "explain" else {}
    if name == "clean":
      asked = {"arm": "random"}
    if name == "measure":
      asked = {"lists": (str(folder / "arms/main/selection/selected.json"),)}
    with context.open_run(cfg, str(folder), **asked) as current:
      seen.clear()  # what opening a run reads, which all commands do
      COMMANDS[name](current)
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
  assert unread == UNREAD.get(command, set())


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_command_that_runs_stages_lists_their_keys(read, command):
  listed = set(help_text.select_keys(COMMANDS[command].keys))
  assert set().union(*(read[stage] for stage in STAGES)) - listed == set()


def test_align_lists_what_seed_reads(read):
  """Both are one call of `tune_share`, with the name of their section."""
  listed = set(help_text.select_keys(COMMANDS["align"].keys))
  keys = {re.sub(r"^seed\b", "align", key) for key in read["seed"]}
  assert "align.batch" in keys and keys - listed == set()


@pytest.mark.parametrize("command", ROOMS)
def test_a_command_lists_the_sections_that_its_own_code_names(command):
  files = [*(PACKAGE / ROOMS[command]).glob("*.py"), PACKAGE / f"stages/{command}.py"]
  text = "".join(path.read_text() for path in files)
  sections = {name.split(".")[0] for name in COMMANDS[command].keys}
  found = set(re.findall(r"\bcfg\.(\w+)", text)) & {*default.get_config()}
  assert command in found and found <= sections


def test_every_command_is_tested_here():
  assert {*ORDER, *ROOMS, "align"} == set(COMMANDS)
