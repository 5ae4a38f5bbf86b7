"""Exit status and message of wrong command lines and inputs, in real processes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from mllm_selector_jax.main import run

ROOT = pathlib.Path(__file__).parents[1]
DEMO = f"--config={ROOT / 'configs' / 'demo.py'}"


def command(*arguments):
  done = subprocess.run(
    [sys.executable, "-m", "mllm_selector_jax.main", *arguments],
    capture_output=True,
    text=True,
    cwd=ROOT,
    check=False,
  )
  assert "Traceback" not in done.stderr, done.stderr
  return done.returncode, done.stderr


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([DEMO], "--workdir=DIR is needed"),
    (["--workdir={}"], "--config=FILE is needed"),
    (["--config=none.py", "--workdir={}"], "there is no such file"),
    (
      [DEMO, "--workdir={}", "--config.select.budgt=5%"],
      "Did you mean --config.select.budget",
    ),
    (
      [DEMO, "--workdir={}", "--config.compare.reference=today.txt"],
      "Did you mean --config.score.reference or --config.select.reference?",
    ),
    ([DEMO, "--workdir={}", "--config.tune.epochs=many"], "invalid literal"),
    (
      [DEMO, "--workdir={}", "--config.log.tensorboard=True"],
      "The key log.tensorboard was replaced. Give --config.log.trackers=tensorboard",
    ),
    ([DEMO, "--workdir={}", "--wrkdir=x"], "Unknown command line flag"),
    (["selct", DEMO, "--workdir={}"], "is not a command"),
    (["check", "--config=easy_vqa", "--workdir={}"], "pool.data names no file"),
  ],
)
def test_a_wrong_command_line_is_one_message(tmp_path, arguments, message):
  arguments = [argument.replace("{}", str(tmp_path)) for argument in arguments]
  status, said = command(*arguments)
  assert status == 2 and message in said


def write_pool(path, text):
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return path


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (None, "the pool file does not exist"),
    ("", "empty"),
    ("[]", "the list is empty"),
    ('[{"id": "a"}', "byte"),
    ('[{"id": "a", "conversations": []}]', "no supervised token"),
    ('[{"id": "a"}]', "conversations"),
    (b'[{"id": "\xff", "conversations": []}]', "malformed"),
    (b"\x1f\x8b\x08 rest", "gzip"),
  ],
)
def test_a_pool_that_cannot_be_used_is_one_message(tmp_path, text, message):
  data = tmp_path / "pool.json"
  if text is not None:
    write_pool(data, text)
  status, said = command(
    "check",
    "--config=easy_vqa",
    f"--workdir={tmp_path / 'work'}",
    f"--config.pool.data={data}",
    f"--config.pool.images={tmp_path}",
  )
  assert status == 2 and message in said, said
  assert "Error: " in said


def test_check_counts_what_it_sets_aside(tmp_path):
  def row(name, **fields):
    turns = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "red"}]
    return {"id": name, "conversations": turns, **fields}

  rows = [
    row("a"),
    row("b", image="../x.png"),
    row("c", image="http://x/y.png"),
    row("a"),
  ]
  data = write_pool(tmp_path / "pool.json", json.dumps(rows))
  status, said = command(
    "check",
    "--config=easy_vqa",
    f"--workdir={tmp_path / 'work'}",
    f"--config.pool.data={data}",
    f"--config.pool.images={tmp_path}",
  )
  assert status == 0, said
  assert "4 rows = 2 usable + 2 set aside" in said
  assert "unsafe path" in said and "1 rows (25.0 %) have an id that an earlier" in said
  assert "row 3 is row 0" in said and "Look: 2 rows (50.0 %) are set aside." in said


def test_run_returns_the_status_without_leaving():
  assert run(["mllm-selector", DEMO]) == 2


@pytest.mark.parametrize(
  "arguments",
  [
    ["--help"],
    ["check", "--help"],
    ["assemble", "--help"],
    ["verify", f"--card={ROOT / 'docs/published/drawn-21-50'}"],
  ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_reader_of_the_output_ends_a_command_quietly(arguments, unbuffered):
  reader, writer = os.pipe()
  os.close(reader)  # as `head` does once it has read enough
  with os.fdopen(writer, "w") as closed:
    done = subprocess.run(
      [sys.executable, "-m", "mllm_selector_jax.main", *arguments],
      stdout=closed,
      stderr=subprocess.PIPE,
      text=True,
      cwd=ROOT,
      env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
      check=False,
    )
  assert (done.returncode, done.stderr) == (0, "")


def test_the_help_needs_no_jax():
  script = (
    "import sys\n"
    "from mllm_selector_jax import main\n"
    "assert main.run(['x', '--help']) == 0\n"
    "slow = {'jax', 'flax', 'transformers', 'pyarrow', 'torch'}\n"
    "print(sorted(slow & sys.modules.keys()))\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
  )
  assert done.stdout.splitlines()[-1] == "[]"
  assert "mllm-selector [command]" in done.stdout
