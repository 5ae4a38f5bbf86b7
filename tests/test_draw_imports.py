"""The drawing of imports: right for small packages, and on the page as the code is."""

import subprocess

import hypothesis
import pytest
from hypothesis import strategies

from benchmarks import draw_imports
from tests import test_layers

ROOT, PACKAGE = draw_imports.ROOT, draw_imports.PACKAGE
REMAKE = (
  "python benchmarks/draw_imports.py --write docs/architecture.md docs/imports.md"
)
SMALL = {
  "__init__.py": "",
  "types.py": "",
  "storage.py": f"from {PACKAGE}.types import InputError",
  "runs/__init__.py": "",
  "runs/context.py": f"from {PACKAGE} import storage, types\nimport json",
  "stages/__init__.py": "",
  "stages/select.py": f"def select():\n  from {PACKAGE}.runs.context import Run",
  "stages/report/__init__.py": f"import {PACKAGE}.stages.select",
  "main.py": f"from {PACKAGE} import configs, storage\nimport {PACKAGE}.stages.report",
}
DRAWN = """\
```mermaid
flowchart TD
  main["main"]
  stages_report["stages/report"]
  stages["stages"]
  runs["runs"]
  storage["storage"]
  main --> stages_report
  stages_report --> stages
  stages --> runs
  runs --> storage
```
"""


def write(folder, files):
  for name, text in files.items():
    path = folder / PACKAGE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def commit(folder):
  """Commits all of a folder, and gives the commit."""
  git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b.c"]
  for command in (
    ["init", "-q"],
    ["add", "."],
    ["commit", "-qm", "All", "--no-verify"],
  ):
    subprocess.run([*git, *command], check=True)
  head = [*git, "rev-parse", "HEAD"]
  return subprocess.run(head, check=True, capture_output=True, text=True).stdout.strip()


def test_a_small_package_is_drawn_by_rooms_without_implied_arrows(tmp_path):
  write(tmp_path, SMALL)
  assert draw_imports.draw(draw_imports.read_tree(tmp_path)) == DRAWN


def test_rooms_in_a_circle_lie_in_one_box_with_all_their_arrows(tmp_path):
  files = SMALL | {"runs/context.py": f"from {PACKAGE}.stages import report, select"}
  write(tmp_path, files)
  lines = draw_imports.draw(draw_imports.read_tree(tmp_path)).splitlines()
  start = lines.index('  subgraph runs_circle["in a circle"]')
  nodes = ['  runs["runs"]', '  stages["stages"]', '  stages_report["stages/report"]']
  assert lines[start + 1 : start + 5] == [*nodes, "  end"]
  assert "  runs --> stages & stages_report" in lines


def test_a_commit_is_read_as_it_was(tmp_path):
  write(tmp_path, SMALL)
  first = commit(tmp_path)
  write(tmp_path, {"main.py": "", "pages/plots.py": "\n\n"})
  second = commit(tmp_path)
  read = draw_imports.read_commit
  assert draw_imports.draw(read(first, tmp_path)) == DRAWN
  assert read(second, tmp_path) == draw_imports.read_tree(tmp_path)
  table = draw_imports.tabulate_lines(read(first, tmp_path), read(second, tmp_path))
  assert "| `main` | 1 | 2 | 1 | 0 |\n" in table
  assert "| `pages` |  |  | 1 | 2 |\n" in table
  assert "| `stages/report` | 1 | 1 | 1 | 1 |\n" in table
  assert table.endswith("| all | 9 | 8 | 10 | 8 |\n")


rooms = strategies.sampled_from("abcdef")
graphs = strategies.dictionaries(rooms, strategies.sets(rooms), min_size=6)


@hypothesis.given(graphs)
def test_a_reduced_graph_reaches_what_the_whole_one_does(graph):
  graph = {room: targets - {room} for room, targets in graph.items()}
  reduced = draw_imports.reduce_graph(graph)
  assert draw_imports.find_reachable(reduced) == draw_imports.find_reachable(graph)
  circles = draw_imports.find_circles(graph)
  for room, targets in reduced.items():
    assert targets <= graph[room]
    for target in targets:
      if all(len(circles[end]) == 1 for end in (room, target)):
        fewer = {**reduced, room: targets - {target}}
        assert target not in draw_imports.find_reachable(fewer)[room]
  assert set().union(*draw_imports.sort_rooms(graph)) == graph.keys()


def test_the_code_is_drawn_with_the_imports_that_the_layer_test_sees():
  seen = {}
  for path in test_layers.FILES:
    names = {
      name.split(".")[1]
      for name in test_layers.imports(path)
      if name.startswith(f"{PACKAGE}.")
    }
    seen.setdefault(test_layers.place(path), set()).update(names)
  graph = draw_imports.read_graph(draw_imports.read_tree(ROOT))
  for room, targets in graph.items():
    assert targets == seen[room] - {room, "types", "configs"}, room
  assert graph.keys() == seen.keys() - {"types", "__init__"}


def test_the_page_has_the_drawing_of_today():
  page = (ROOT / "docs" / "architecture.md").read_text()
  assert draw_imports.BLOCK.search(page)
  assert draw_imports.rewrite(page) == page, f"The imports changed: run `{REMAKE}`."


def test_pages_are_made_again_by_the_arguments_in_their_comments(tmp_path):
  write(tmp_path, SMALL)
  page = f"Before.\n\n<!-- draw_imports.py {tmp_path} -->\nold\n<!-- end -->\nAfter.\n"
  made = draw_imports.rewrite(page)
  assert made == page.replace("old\n", f"\n{DRAWN}\n")
  assert draw_imports.rewrite(made) == made


@pytest.mark.parametrize("page", ["architecture.md", "imports.md"])
def test_every_block_of_a_page_says_how_it_is_made(page):
  text = (ROOT / "docs" / page).read_text()
  assert text.count("```mermaid") == len(
    [made for made in draw_imports.BLOCK.finditer(text) if "mermaid" in made[0]]
  )
