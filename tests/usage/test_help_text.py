"""The help of every command, its flags, and what it costs."""

import inspect
import re
import resource
import subprocess
import sys

import pytest

from mllm_selector_jax import __version__, command_line, main
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.usage import flag_table, help_text
from mllm_selector_jax.usage.config_keys import read_keys

EVERY = (*COMMANDS, *flag_table.OTHERS)


def ask(capsys, *arguments):
  assert main.run(["mllm-selector", *arguments]) == 0
  return capsys.readouterr().out


@pytest.mark.parametrize("command", EVERY)
def test_the_help_of_a_command_says_its_flags(command, capsys):
  text = ask(capsys, command, "--help")
  assert f"mllm-selector {command} " in text
  assert ask(capsys, "--help", command) == text
  for name, flag in flag_table.list_flags(command).items():
    line = f"  --{name}={flag.value}" if flag.value else f"  --{name}"
    assert line in text.splitlines()
  width = max(map(len, text.splitlines()))
  assert command in ("assemble", *COMMANDS) or width <= help_text.WIDTH


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_says_its_keys(command):
  text = help_text.write_help(command)
  named = re.findall(r"^  --config\.([\w.]+)=", text, re.MULTILINE)
  assert named == list(help_text.select_keys(COMMANDS[command].keys))
  assert COMMANDS[command].summary in text


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_command_declares_exists(command):
  sections = {key.rpartition(".")[0] for key in read_keys()}
  assert set(COMMANDS[command].keys) <= {*read_keys(), *sections}
  assert set(COMMANDS[command].flags) <= set(flag_table.SPECIAL)


def test_a_section_stands_for_its_keys():
  assert list(help_text.select_keys(["mesh"])) == [
    *("mesh.data", "mesh.fsdp", "mesh.tensor")
  ]
  assert list(help_text.select_keys(["tune.lora", "rng_seed"])) == [
    *("rng_seed", "tune.lora.rank", "tune.lora.alpha", "tune.lora.modules")
  ]


def test_the_table_has_the_flags_that_are_parsed():
  source = inspect.getsource(command_line)
  defined = set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source)) - {
    *flag_table.CARD,
    *flag_table.PUSH,
  }
  assert defined == {*flag_table.COMMON, *flag_table.SPECIAL}


def test_the_overview_names_all_commands(capsys):
  text = ask(capsys, "--help")
  assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in EVERY)
  assert ask(capsys, "selct", "--help") == text


def test_the_version(capsys):
  assert ask(capsys, "--version") == f"mllm-selector {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_the_help_takes_less_than_half_a_second_of_a_core(arguments):
  before = resource.getrusage(resource.RUSAGE_CHILDREN)
  done = subprocess.run(
    [sys.executable, "-X", "importtime", "-m", "mllm_selector_jax.main", *arguments],
    capture_output=True,
    text=True,
    check=True,
  )
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  assert after.ru_utime - before.ru_utime < 0.5
  imported = set(re.findall(r"\| +([\w]+)$", done.stderr, re.MULTILINE))
  assert not imported & {"jax", "numpy", "ml_collections", "absl", "transformers"}
