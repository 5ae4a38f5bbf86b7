"""The completion in a real bash: what it offers for what was typed."""

import shlex
import subprocess

import pytest

from mllm_selector_jax import main
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.usage import completion, config_keys, flag_table

# What bash does at a TAB: it sets these variables, and calls the function.
CALL = """
source {script}
cd {folder}
COMP_LINE={line} COMP_POINT=${{#COMP_LINE}} COMP_WORDBREAKS={breaks}
_mllm_selector
printf '%s\\n' "${{COMPREPLY[@]}}"
complete -p mllm-selector
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
  path = tmp_path_factory.mktemp("completion") / "script"
  path.write_text(completion.write_script("bash"))
  return path


def complete(script, line, breaks=" =:"):
  text = CALL.format(
    script=script,
    folder=script.parent,
    line=shlex.quote(line),
    breaks=shlex.quote(breaks),
  )
  done = subprocess.run(
    ["bash", "--norc", "-c", text], capture_output=True, text=True, check=True
  )
  assert done.stderr == ""
  *offered, registered = done.stdout.splitlines()
  assert registered == "complete -F _mllm_selector mllm-selector"
  return [word for word in offered if word]


@pytest.mark.parametrize(
  ("typed", "offered"),
  [
    ("", [*COMMANDS, *flag_table.OTHERS]),
    ("ex", ["explain", "export-selection"]),
    ("check x", []),
    ("completion ", ["bash", "zsh"]),
    ("explain --i", ["--id="]),
    ("measure --i", ["--ids="]),
    ("score --i", []),
    ("verify --", ["--card=", "--help"]),
    ("assemble --deco", ["--decoder="]),
    ("--conf", ["--config=", "--config."]),
    ("--config=dem", ["demo"]),
    ("tune --config=demo --config.tune.lora.", ["rank", "alpha", "modules"]),
    ("--config.select.control=T", ["True"]),
    ("--config.select.budget=", ["script"]),
    ("--workdir=scr", ["script"]),
  ],
)
def test_what_bash_offers(script, typed, offered):
  if typed.endswith("lora."):
    offered = [f"--config.tune.lora.{name}=" for name in offered]
  assert complete(script, f"mllm-selector {typed}") == offered


def test_all_keys_are_offered(script):
  offered = complete(script, "mllm-selector --config.")
  assert offered == [f"--config.{key}=" for key in config_keys.read_keys()]


def test_a_bash_whose_words_do_not_end_at_equals_signs(script):
  assert complete(script, "mllm-selector --config=dem", " ") == ["--config=demo"]


def test_zsh_has_the_same_names():
  text = completion.write_script("zsh")
  assert text.startswith("#compdef mllm-selector\n") and "@" not in text.replace(
    "@)", ""
  ).replace('"$@"', "")
  for name in (*COMMANDS, *flag_table.OTHERS):
    assert f" {name} " in text or f'"{name}")' in text
  assert all(f"--config.{key}=" in text for key in config_keys.read_keys())


def test_an_unknown_shell_is_one_message(capsys):
  assert main.run(["mllm-selector", "completion", "fish"]) == 2
  assert "bash or zsh" in capsys.readouterr().err
