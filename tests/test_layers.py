"""The table of docs/architecture.md against the imports of the code."""

import ast
import collections
import graphlib
import pathlib
import re
import subprocess
import sys

import pytest

PACKAGE = "mllm_selector_jax"
ROOT = pathlib.Path(__file__).parents[1]

# Room -> rooms that it may import, beside itself and types.
CORE = {
  "arrays",
  "listing",
  "losses",
  "mesh_shape",
  "models",
  "panics",
  "plugins",
  "runs",
  "sharding",
  "storage",
}
DATA = CORE | {"data"}
INPUTS = DATA | {"demo", "evaluation", "inputs", "selection"}
PIPELINE = INPUTS | {"pipeline", "scoring", "training"}
ALLOWED = {
  "__init__": {"api"},
  "types": set(),
  "arrays": set(),
  "panics": set(),
  "plugins": set(),
  "listing": set(),
  "storage": {"listing"},
  "mesh_shape": set(),
  "sharding": {"arrays", "mesh_shape"},
  "runs": {"data", "plugins", "sharding", "storage"},
  "losses": {"arrays", "sharding"},
  "data": {"listing", "panics", "plugins", "storage"},
  "models": {"arrays", "panics", "runs", "sharding", "storage"},
  "training": CORE,
  "scoring": DATA,
  "selection": {"arrays", "plugins", "sharding"},
  "evaluation": DATA,
  "demo": DATA | {"training"},
  "inputs": INPUTS - {"inputs"},
  "pipeline": PIPELINE - {"pipeline"},
  "comparison": PIPELINE,
  "planning": PIPELINE,
  "pages": PIPELINE | {"comparison"},
  "settings": PIPELINE | {"comparison", "planning"},
  "stages": PIPELINE | {"comparison", "pages", "planning"},
  "api": PIPELINE | {"configs", "settings", "stages"},
  "usage": {"configs", "stages"},
  "command_line": {"configs", "stages", "usage"},
  "invocation": PIPELINE | {"command_line", "settings", "stages", "usage"},
  "main": {"invocation", "runs", "usage"},
}
LONGEST_FILE = 350  # lines

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


def test_every_room_is_in_the_table():
  assert {place(path) for path in FILES} == set(ALLOWED)


def read_table(page):
  """Reads which rooms each room may import from the table of a page.

  Words such as *core* are short for the rooms that the page says they stand for.
  Rows about folders outside of the package are passed over.
  """
  text = " ".join(page.split())
  short = dict(re.findall(r"\*(\w+)\* stands for ([\w, ]+?)(?=, and \*|\.)", text))
  short = {word: re.findall(r"\w+", rooms) for word, rooms in short.items()}
  table = {}
  for name, rooms in re.findall(r"^\| `([\w./]+)` \|.*\|(.*)\|$", page, re.MULTILINE):
    # A run's workdir may have the name of a room.
    if (ROOT / PACKAGE / name).exists() or not (ROOT / name).exists():
      words = re.findall(r"\w+", rooms)
      table[name] = {room for word in words for room in short.get(word, [word])}
      table[name].discard("and")
  return table


def test_the_page_has_the_table():
  table = read_table((ROOT / "docs" / "architecture.md").read_text())
  for name in table:
    assert (ROOT / PACKAGE / name).exists(), name
  rooms = {re.sub(r"\.py$|/$", "", name): allowed for name, allowed in table.items()}
  wanted = {room: allowed for room, allowed in ALLOWED.items() if room != "__init__"}
  for room in rooms.keys() | wanted.keys():
    assert rooms.get(room) == wanted.get(room), room


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_table(path):
  own = place(path)
  for name in imports(path):
    if name.split(".")[0] == PACKAGE and "." in name:
      target = name.split(".")[1]
      assert target in ALLOWED[own] | {own, "types"}, f"{path} imports {name}"


def module(path):
  """The dotted name of a file."""
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_imports_go_in_a_circle():
  modules = {module(path): path for path in FILES}
  graph = {}
  for name, path in modules.items():
    names = [name for name in imports(path) if name != f"{PACKAGE}.configs"]
    targets = {name if name in modules else name.rpartition(".")[0] for name in names}
    graph[name] = targets & set(modules) - {name}
  graphlib.TopologicalSorter(graph).prepare()


def test_no_two_files_have_one_name():
  stems = collections.Counter(p.stem for p in FILES if "stages" not in p.parts)
  del stems["__init__"]
  assert [stem for stem, count in stems.items() if count > 1] == []


@pytest.mark.parametrize("folder", [PACKAGE, "tests", "benchmarks"])
def test_files_are_short(folder):
  lines = {
    path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")
  }
  assert {path: count for path, count in lines.items() if count > LONGEST_FILE} == {}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_data_knows_no_jax(path):
  if place(path) in ("data", "storage", "types"):
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
