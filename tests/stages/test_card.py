"""A published selection is drawn again from its own folder alone."""

import json
import pathlib
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax import main, storage
from mllm_selector_jax.configs import default
from mllm_selector_jax.pipeline import card
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run

PUBLISHED = pathlib.Path(__file__).parents[2] / "docs" / "published"
CASES = [
  {"groups": "kmeans"},
  {"groups": "source", "bound": "probe"},
  {"groups": "kmeans*source", "duplicates": 0.99},
  {"strategy": "d2"},
  {"budget": "20%flops", "groups": "source", "most": "image=1, source=90%"},
  {"within": "cover", "least": "source=2", "groups": "source"},
]


@pytest.fixture(params=CASES)
def published(request, select, base, tmp_path):
  _, folder = select(**request.param)
  settings = {"export_selection.formats": "ids,card", "score.model": str(base)}
  with small_run.open_run(folder, base, **settings) as current:
    COMMANDS["export-selection"](current)
  moved = tmp_path / "card"
  shutil.copytree(folder / "arms/main/exports/card", moved)
  shutil.rmtree(folder)  # nothing but the card is left
  return moved


def test_a_card_is_enough_to_draw_again(published, capsys):
  found = json.loads((published / "card.json").read_text())
  assert found["dataset"]["rows"] == 120 and found["base"]["hash"]
  assert found["command"].startswith("mllm-selector") and found["config"]["budget"]
  made = json.loads((published / "pool.provenance.json").read_text())["config"]
  assert made["data"] == ["pool.json"] and "/" not in made["images"]
  assert set(pq.read_table(published / "pool.parquet")["file"].to_pylist()) == {
    "pool.json"
  }
  assert "Dataset: pool.json" in (published / "README.md").read_text()
  config = found["config"]
  reads = config["strategy"] == "d2" or config["duplicates"] > 0
  reads |= config["within"] == "cover"
  assert (published / "scores/embeddings").exists() == reads
  clustered = config["groups"] == "kmeans" and not reads
  assert (published / "clusters").exists() == clustered
  before = small_run.read_bytes(published)
  assert main.run(["mllm-selector", "verify", f"--card={published}"]) == 0
  kept = found["kept"]
  assert f"verify: {kept} of 120 rows are kept, as published" in capsys.readouterr().out
  assert small_run.read_bytes(published) == before


def test_what_was_changed_is_named(published, capsys):
  path = published / "selection.parquet"
  table = pq.read_table(path)
  turned = [not kept for kept in table["kept"].to_pylist()]
  place = table.column_names.index("kept")
  changed = table.set_column(place, "kept", pa.array(turned))
  pq.write_table(changed, path)
  with pytest.raises(InputError, match="is not the file that was published"):
    card.verify(published, default.get_config())
  found = json.loads((published / "card.json").read_text())
  found["hashes"]["selection.parquet"] = storage.hash_file(path)
  artifacts.write_json(published / "card.json", found)
  with pytest.raises(InputError, match="120 of 120 rows differ; the first is row 0"):
    card.verify(published, default.get_config())
  assert main.run(["mllm-selector", "verify"]) == 2
  assert main.run(["mllm-selector", "verify", "--card=nowhere"]) == 2
  assert "no card.json of a published selection" in capsys.readouterr().err


@pytest.mark.parametrize(
  "folder", sorted(PUBLISHED.iterdir()), ids=lambda path: path.name
)
def test_what_the_project_published_is_drawn_again(folder, capsys):
  assert main.run(["mllm-selector", "verify", f"--card={folder}"]) == 0
  assert "are kept, as published" in capsys.readouterr().out
