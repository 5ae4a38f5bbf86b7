"""What setup.py declares against what the code imports and reads."""

import ast
import importlib.metadata
import pathlib
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "mllm_selector_jax"
OWN = {"mllm_selector_jax", "tests", "benchmarks", "configs"}
# Read what only torch can, and say so where there is no torch.
CONVERTERS = [
  PACKAGE / "models" / "huggingface" / name
  for name in ("convert.py", "merge_adapter.py")
]


def read_setup():
  """The literal arguments of setup.py's one call."""
  tree = ast.parse((ROOT / "setup.py").read_text())
  calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
  (call,) = [c for c in calls if getattr(c.func, "attr", "") == "setup"]
  given = {}
  for keyword in call.keywords:
    try:
      given[keyword.arg] = ast.literal_eval(keyword.value)
    except ValueError:
      continue  # made by code
  return given


SETUP = read_setup()
BASE = [Requirement(text) for text in SETUP["install_requires"]]
OPTIONAL = [
  Requirement(text)
  for extra in ("tensorboard", "wandb", "mlflow")
  for text in SETUP["extras_require"][extra]
]
# Modules of other names than their distributions, which need not be installed.
OTHER_NAMES = {"mlflow": ["mlflow-skinny"]}
TEST = [Requirement(text) for text in SETUP["extras_require"]["test"]]


def imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
      yield node.module


def find_undeclared(paths, requirements):
  """Imported distributions that no requirement names, with a file of each."""
  declared = {canonicalize_name(requirement.name) for requirement in requirements}
  distributions = importlib.metadata.packages_distributions()
  beside = {path.stem for path in paths}  # a test's own helper
  undeclared = {}
  for path in paths:
    for name in imports(path):
      root = name.split(".")[0]
      if root in sys.stdlib_module_names | OWN | beside:
        continue
      found = {
        canonicalize_name(d)
        for d in distributions.get(root, OTHER_NAMES.get(root, [root]))
      }
      if not found & declared:
        undeclared[root] = str(path.relative_to(ROOT))
  return undeclared


def test_the_package_declares_what_it_imports():
  paths = [path for path in PACKAGE.rglob("*.py") if path not in CONVERTERS]
  paths += (ROOT / "configs").glob("*.py")
  assert find_undeclared(paths, BASE + OPTIONAL) == {}


def test_tests_and_benchmarks_declare_what_they_import():
  paths = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
  # These run in the trainers' environments, and with the extra "rivals".
  for name in ("trainers", "kmeans", "greedy", "pairwise"):
    paths.remove(ROOT / f"benchmarks/{name}.py")
  assert find_undeclared([*paths, *CONVERTERS], BASE + TEST) == {}


def test_the_test_finds_what_is_missing():
  found = find_undeclared([PACKAGE / "command_line.py"], BASE[1:])
  assert BASE[0].name == "absl-py"
  assert found == {"absl": "mllm_selector_jax/command_line.py"}


@pytest.mark.parametrize("requirement", BASE + TEST, ids=lambda r: r.name)
def test_what_is_installed_is_in_the_declared_range(requirement):
  assert requirement.specifier, f"{requirement.name} has no range"
  version = importlib.metadata.version(requirement.name)
  assert requirement.specifier.contains(version, prereleases=True), version


def test_every_file_that_is_read_at_run_time_is_packed():
  packed = {
    path for pattern in SETUP["package_data"][PACKAGE.name]
    for path in PACKAGE.glob(pattern)
  }  # fmt: skip
  others = {
    path
    for path in PACKAGE.rglob("*")
    if path.is_file() and path.suffix not in (".py", ".pyc")
  }
  assert others - packed == set()
  assert PACKAGE / "demo/base/LICENSE" in packed
  folders = {path.parent for path in PACKAGE.rglob("*.py")}
  assert {
    folder for folder in folders if not (folder / "__init__.py").exists()
  } == set()


def test_the_base_is_small_and_licensed():
  base = PACKAGE / "demo" / "base"
  assert sum(path.stat().st_size for path in base.iterdir()) <= 8_000_000
  assert "Apache License" in (base / "LICENSE").read_text()
