"""An installable package of plug-ins, put on the path as an installer would."""

import pathlib
import sys
import tomllib

FOLDER = pathlib.Path(__file__).parent
NAME = "example_plugin"


def add(monkeypatch, folder=FOLDER):
  """Puts the modules of a folder on the path, and forgets what was imported before."""
  monkeypatch.syspath_prepend(folder)
  for name in [*sys.modules]:
    if name.partition(".")[0] == NAME:
      monkeypatch.delitem(sys.modules, name)


def install(monkeypatch, folder):
  """The same, and the metadata that an installer writes, in a folder of its own."""
  add(monkeypatch)
  project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
  info = folder / f"{NAME}-{project['version']}.dist-info"
  info.mkdir()
  (info / "METADATA").write_text(
    f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
  )
  lines = []
  for group, points in project["entry-points"].items():
    lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
  (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
  monkeypatch.syspath_prepend(folder)
