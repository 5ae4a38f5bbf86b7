"""The notebook of the documentation, executed as it stands."""

import pathlib

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parents[2]


def test_the_tour_runs_to_its_end(tmp_path, monkeypatch):
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  tour = nbformat.read(ROOT / "docs/tour.ipynb", 4)
  nbformat.validate(tour)
  settings = next(cell for cell in tour.cells if "SETTINGS =" in cell.source)
  settings.source = settings.source.replace('"pool.demo.rows": 300', SMALL)
  assert SMALL in settings.source
  nbclient.NotebookClient(
    tour, timeout=500, resources={"metadata": {"path": str(tmp_path)}}
  ).execute()
  texts = [
    output["data"].get("text/plain", "")
    for cell in tour.cells
    for output in cell.get("outputs", ())
    if "data" in output
  ]
  assert "ids.txt" in texts[-1] and "llava" in texts[-1]
  assert sum("<Figure" in text for text in texts) == 2


SMALL = '"pool.demo.rows": 120, "seed.rows": "40"'
