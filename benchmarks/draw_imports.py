"""Draws which rooms of the package import which, and counts their lines.

  python benchmarks/draw_imports.py                       # the code as it is here
  python benchmarks/draw_imports.py --commit d292264      # the code of a commit
  python benchmarks/draw_imports.py --lines d292264 0fe9d2c  # a table of lines
  python benchmarks/draw_imports.py --write docs/imports.md

A room is a top-level file or folder of the package, or one of `NESTED`. The drawing is
a Mermaid flowchart in which an arrow points from a room to one that it imports, reduced
to the arrows that no others imply. Rooms that import each other in a circle lie in one
box, with all arrows between them. `types`, which everything may import, is left out.

`--write` makes the blocks of pages again: whatever lies between the comments
`<!-- draw_imports.py ARGUMENTS -->` and `<!-- end -->`, by these arguments.
"""

import argparse
import ast
import graphlib
import io
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PACKAGE = "mllm_selector_jax"
ROOT = Path(__file__).parents[1]
# Folders inside a room that were rooms by themselves before they were moved.
NESTED = (
  "data/demo",
  "stages/compare",
  "stages/plan",
  "stages/report",
  "stages/search",
  "stages/settings",
)
LEFT_OUT = ("types", "__init__")
BLOCK = re.compile(r"(<!-- draw_imports\.py([^\n]*?)-->\n).*?(<!-- end -->)", re.DOTALL)

Files = Mapping[str, str]  # the text of each Python file by its path in the package
Graph = dict[str, set[str]]  # what each room imports, itself left out


class Size(NamedTuple):
  """How large a room is."""

  files: int
  lines: int


def read_tree(root: Path) -> Files:
  """Reads the package's files from a checkout."""
  package = root / PACKAGE
  paths = sorted(package.rglob("*.py"))
  return {path.relative_to(package).as_posix(): path.read_text() for path in paths}


def read_commit(commit: str, root: Path = ROOT) -> Files:
  """Reads the package's files from a commit, without checking it out.

  Raises:
    CalledProcessError: git does not know the commit.
  """
  command = ["git", "-C", str(root), "archive", "--format=tar", commit, PACKAGE]
  done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
  with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
    return {
      member.name.removeprefix(f"{PACKAGE}/"): archive.extractfile(member)
      .read()
      .decode()
      for member in archive
      if member.isfile() and member.name.endswith(".py")
    }


def find_room(path: str) -> str:
  """The room in which a file of the package lies."""
  for folder in NESTED:
    if path.startswith(f"{folder}/"):
      return folder
  return path.split("/")[0].removesuffix(".py")


def list_imports(text: str) -> Iterator[str]:
  """Names that a file imports from the package, in functions too."""
  for node in ast.walk(ast.parse(text)):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
      names = [f"{node.module}.{alias.name}" for alias in node.names]
    yield from (name for name in names if name.startswith(f"{PACKAGE}."))


def find_file(name: str, files: Files) -> str | None:
  """The file of the longest beginning of a dotted name that is a module."""
  parts = name.split(".")[1:]
  for count in range(len(parts), 0, -1):
    path = "/".join(parts[:count])
    for candidate in (f"{path}.py", f"{path}/__init__.py"):
      if candidate in files:
        return candidate
  return None


def read_graph(files: Files) -> Graph:
  """Which rooms each room imports."""
  graph: Graph = {find_room(path): set() for path in sorted(files)}
  for path, text in files.items():
    for name in list_imports(text):
      target = find_file(name, files)
      if target is not None:
        graph[find_room(path)].add(find_room(target))
  kept = graph.keys() - set(LEFT_OUT)
  return {room: graph[room] & kept - {room} for room in sorted(kept)}


def find_reachable(graph: Graph) -> Graph:
  """Which rooms each room imports, directly or by way of others."""
  reachable = {}
  for room in graph:
    seen, waiting = set(), list(graph[room])
    while waiting:
      target = waiting.pop()
      if target not in seen:
        seen.add(target)
        waiting += graph[target]
    reachable[room] = seen
  return reachable


def find_circles(graph: Graph) -> dict[str, frozenset[str]]:
  """For each room, itself and the rooms with which it lies in a circle."""
  reachable = find_reachable(graph)
  return {
    room: frozenset(
      {room} | {other for other in reachable[room] if room in reachable[other]}
    )
    for room in graph
  }


def reduce_graph(graph: Graph) -> Graph:
  """The graph without the arrows that others imply; circles keep all of theirs."""
  reachable, circles = find_reachable(graph), find_circles(graph)

  def is_implied(room: str, target: str) -> bool:
    between = graph.keys() - circles[room] - circles[target]
    return any(c in reachable[room] and target in reachable[c] for c in between)

  return {
    room: {
      target
      for target in targets
      if target in circles[room] or not is_implied(room, target)
    }
    for room, targets in graph.items()
  }


def sort_rooms(graph: Graph) -> list[frozenset[str]]:
  """Circles, most of them of one room, from those that nothing imports downwards."""
  circles = find_circles(graph)
  importers = {circle: set() for circle in circles.values()}
  for room, targets in graph.items():
    for target in targets:
      if circles[room] != circles[target]:
        importers[circles[target]].add(circles[room])
  sorter = graphlib.TopologicalSorter(importers)
  sorter.prepare()
  ordered = []
  while sorter.is_active():
    ready = sorted(sorter.get_ready(), key=sorted)
    ordered += ready
    sorter.done(*ready)
  return ordered


def draw(files: Files) -> str:
  """A Mermaid flowchart of the imports between rooms."""
  graph = read_graph(files)
  arrows = reduce_graph(graph)
  lines = ["```mermaid", "flowchart TD"]
  for circle in sort_rooms(graph):
    nodes = [f'{_name(room)}["{room}"]' for room in sorted(circle)]
    if len(circle) > 1:
      nodes = [f'subgraph {_name(min(circle))}_circle["in a circle"]', *nodes, "end"]
    lines += [f"  {node}" for node in nodes]
  for circle in sort_rooms(graph):
    for room in sorted(circle):
      if arrows[room]:
        targets = " & ".join(_name(target) for target in sorted(arrows[room]))
        lines.append(f"  {_name(room)} --> {targets}")
  return "\n".join([*lines, "```", ""])


def _name(room: str) -> str:
  """A room's name as Mermaid takes it for a node."""
  return room.replace("/", "_")


def count_lines(files: Files) -> dict[str, Size]:
  """Files and lines of each room."""
  sizes: dict[str, Size] = {}
  for path, text in files.items():
    files_before, lines_before = sizes.get(find_room(path), Size(0, 0))
    count = len(text.splitlines())
    sizes[find_room(path)] = Size(files_before + 1, lines_before + count)
  return sizes


def tabulate_lines(before: Files, after: Files) -> str:
  """A Markdown table of each room's files and lines, before and after."""
  sizes = count_lines(before), count_lines(after)
  rooms = sorted({*sizes[0], *sizes[1]} - {"__init__"})
  lines = [
    "| room | files before | lines before | files after | lines after |",
    "|---|--:|--:|--:|--:|",
  ]
  for room in rooms:
    cells = [
      f"{number:,}" if room in side else ""
      for side in sizes
      for number in side.get(room, Size(0, 0))
    ]
    lines.append(f"| `{room}` | {' | '.join(cells)} |")
  totals = [
    f"{sum(column):,}" for side in sizes for column in zip(*side.values(), strict=True)
  ]
  lines.append(f"| all | {' | '.join(totals)} |")
  return "\n".join([*lines, ""])


def make(options: argparse.Namespace) -> str:
  """The drawing or the table that the command line asks for."""
  if options.lines:
    before, after = map(read_commit, options.lines)
    return tabulate_lines(before, after)
  if options.commit:
    return draw(read_commit(options.commit))
  return draw(read_tree(options.tree))


def rewrite(page: str) -> str:
  """A page's text with its blocks made again."""

  def fill(match: re.Match) -> str:
    return f"{match[1]}\n{make(parse(match[2].split()))}\n{match[3]}"

  return BLOCK.sub(fill, page)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  """Reads the command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "tree", nargs="?", type=Path, default=ROOT, help="a checkout; this one by default"
  )
  parser.add_argument("--commit", help="draw the code of a commit, not of a checkout")
  parser.add_argument(
    "--lines", nargs=2, metavar=("BEFORE", "AFTER"), help="commits to compare in lines"
  )
  parser.add_argument(
    "--write",
    nargs="+",
    type=Path,
    metavar="PAGE",
    help="pages to make blocks of again",
  )
  return parser.parse_args(arguments)


def main() -> None:
  """Prints the drawing or the table, or writes them into pages."""
  options = parse(None)
  for page in options.write or ():
    page.write_text(rewrite(page.read_text()))
  if not options.write:
    print(make(options), end="")


if __name__ == "__main__":
  main()
