"""The table of docs/architecture.md against the imports of the code."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = "mllm_selector_jax"
ROOT = pathlib.Path(__file__).parents[1]

# Place -> places that it may import, beside itself and types.
ALLOWED = {
  "__init__": set(),
  "types": set(),
  "sharding": set(),
  "peers": {"sharding"},
  "losses": {"sharding"},
  "artifacts": set(),
  "interrupts": set(),
  "checkpoint": {"peers", "artifacts", "interrupts"},
  "data": {"artifacts"},
  "models": {"sharding", "peers"},
  "training": {"losses", "models", "data", "checkpoint", "sharding", "peers"},
  "scoring": {"losses", "models", "data", "artifacts", "sharding", "peers"},
  "selection": {"sharding"},
  "evaluation": {"losses", "models", "data", "artifacts", "sharding", "peers"},
  "command_line": {"stages", "configs"},
  "main": {"stages", "command_line"},
}
ALLOWED["stages"] = set(ALLOWED) - {"stages", "command_line", "main", "__init__"}

LIGHT = ("models", "losses", "scoring.signals", "selection")
HEAVY = ("grain", "tensorflow_datasets", "ml_collections", "transformers", "pyarrow")


def imports(path):
  """Names of internal modules that a file imports, anywhere in it."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
      yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield f"{PACKAGE}.relative"


def place(path):
  return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


FILES = sorted((ROOT / PACKAGE).rglob("*.py"))


def test_every_place_is_in_the_table():
  assert {place(path) for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_table(path):
  own = place(path)
  for name in imports(path):
    if name.split(".")[0] == PACKAGE and "." in name:
      target = name.split(".")[1]
      assert target in ALLOWED[own] | {own, "types"}, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_data_and_artifacts_know_no_jax(path):
  if place(path) in ("data", "artifacts", "types"):
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & {"jax", "flax", "optax", "torch"}, path


def test_torch_is_for_tests_only():
  for path in FILES:
    if path.parts[-2:] == ("huggingface", "convert.py"):
      continue  # reads what only torch can
    assert "torch" not in {name.split(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize("module", LIGHT)
def test_the_numeric_core_imports_nothing_heavy(module):
  script = (
    f"import sys, {PACKAGE}.{module}\n"
    f"print([name for name in {HEAVY!r} if name in sys.modules])"
  )
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "[]"


def test_configs_import_ml_collections_only():
  for path in (ROOT / "configs").glob("*.py"):
    roots = {name.split(".")[0] for name in imports(path)}
    assert roots <= {"ml_collections", PACKAGE}, path
