"""Commands that need no model import neither jax nor torch, in real processes."""

import json
import subprocess
import sys

import pytest
from PIL import Image

PACKAGE = "mllm_selector_jax"
JAX = ("jax", "jaxlib", "flax", "optax", "orbax")
LEFT_OUT = (*JAX, "torch", "torchvision")

# The command line, and all that it reads before it knows that a model is needed.
MODULES = (
  "api",
  "inputs.base_model",
  "inputs.questions",
  "invocation",
  "models.config",
  "models.huggingface",
  "pipeline.candidates",
  "pipeline.check_pool",
  "planning.topology",
  "runs.agreement",
  "runs.bucket",
  "runs.context",
  "scoring.signals",
  "selection.strategies",
  "settings",
  "stages.check",
  "stages.prepare",
)

# A command line, and at its end which of the modules were imported.
SCRIPT = f"""
import sys
from {PACKAGE} import main
if __name__ == "__main__":
  try:
    main.main()
  finally:
    print("imported", sorted(set({LEFT_OUT!r}) & sys.modules.keys()))
"""


def run_python(*arguments):
  done = subprocess.run(
    [sys.executable, *arguments], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout.splitlines()


def find_imported(*names):
  """The modules of `LEFT_OUT` that come with modules of the package."""
  lines = [f"import {PACKAGE}.{name}" for name in names]
  lines = ["import sys", *lines, f"print(sorted(set({LEFT_OUT!r}) & set(sys.modules)))"]
  return run_python("-c", "\n".join(lines))[-1]


def test_what_all_commands_begin_with_imports_no_jax():
  assert find_imported(*MODULES) == "[]"


@pytest.mark.parametrize("name", ["sharding", "runs.row_shares", "pipeline.fine_tune"])
def test_what_computes_imports_jax(name):
  assert "jax" in find_imported(name)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
  """Three rows of which one has an image."""
  folder = tmp_path_factory.mktemp("pool")
  Image.new("RGB", (40, 30), "red").save(folder / "red.png")
  turns = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "red"}]
  rows = [{"id": f"{number}", "conversations": turns} for number in range(2)]
  seen = [{"from": "human", "value": "<image>\nwhat?"}, turns[1]]
  rows.append({"id": "2", "image": "red.png", "conversations": seen})
  (folder / "pool.json").write_text(json.dumps(rows))
  return folder


def test_check_and_prepare_import_no_jax(pool, tmp_path):
  script = tmp_path / "command.py"
  script.write_text(SCRIPT)
  for command, made in (("check", "pool.parquet"), ("prepare", "prepared")):
    said = run_python(
      str(script),
      command,
      "--config=demo",
      f"--workdir={tmp_path / 'work'}",
      f"--config.pool.data={pool / 'pool.json'}",
      f"--config.pool.images={pool}",
    )
    assert said[-1] == "imported []", command
    assert (tmp_path / "work" / made).exists()
