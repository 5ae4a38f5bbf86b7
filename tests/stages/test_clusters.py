"""k-means clusters as an artifact: made once, kept, and stale by name."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.pipeline import kept_work
from mllm_selector_jax.pipeline.explain_rows import explain_rows
from mllm_selector_jax.selection import groups, kmeans
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError


@pytest.fixture
def found(monkeypatch):
  """Counts how often clusters are found; the real function finds them."""
  calls, real = [], kmeans.kmeans

  def count(*args, **options):
    calls.append(args[1])
    return real(*args, **options)

  monkeypatch.setattr(kmeans, "kmeans", count)
  return calls


def read_selection(folder):
  return pq.read_table(folder / "arms/main/selection/selection.parquet").to_pydict()


def test_clusters_are_found_once_for_all_commands(select, found):
  _, folder = select(groups="kmeans", clusters=4, control=True)
  assert found == [4]
  name = read_selection(folder)["id"][0]
  select(groups="source*kmeans", clusters=4, budget="10", **{"sweep.budgets": "5,9"})
  select(lambda run: explain_rows(run, (name,)))
  select(groups="kmeans", clusters=4, strategy="ifd")
  assert found == [4]
  select(groups="kmeans", clusters=3)
  select(groups="kmeans", clusters=4)  # the other clusters are still there
  assert found == [4, 3]
  assert sorted(p.name for p in (folder / "clusters").iterdir()) == ["3-0", "4-0"]
  made = json.loads((folder / "clusters/4-0/provenance.json").read_text())
  assert made["config"] == {"clusters": 4, **groups.KMEANS}
  assert set(made["inputs"]) == {"scores", "pool"}


def test_clusters_are_the_groups_and_one_of_each_row(select):
  _, folder = select(groups="kmeans", clusters=4)
  table = pq.read_table(folder / "clusters/4-0/clusters.parquet").to_pydict()
  rows = read_selection(folder)["group"]
  assert table["cluster"] == [rows[row] for row in table["row"]]
  assert len(table["row"]) == sum(group is not None for group in rows)


def test_clusters_that_were_ended_go_on_and_are_the_same(select, monkeypatch):
  _, folder = select(groups="kmeans", clusters=4)
  path = folder / "clusters/4-0/clusters.parquet"
  whole, wanted = pq.read_table(path), path.read_bytes()
  shutil.rmtree(path.parent)
  monkeypatch.setattr(kept_work, "EVERY", 0.0)
  write = kept_work.KeptWork._write

  def end(self):
    write(self)
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(kept_work.KeptWork, "_write", end)
    with pytest.raises(KeyboardInterrupt):
      select(groups="kmeans", clusters=4, budget="9")
  assert len(list((folder / "clusters").glob("4-0.*.partial/passes-*/0.npz"))) == 1

  def first_centres(self, clusters, rng):
    raise AssertionError("it begins again")

  monkeypatch.setattr(kmeans._Chunks, "first_centres", first_centres)
  select(groups="kmeans", clusters=4, budget="9")
  assert pq.read_table(path).equals(whole) and path.read_bytes() == wanted
  assert [p.name for p in (folder / "clusters").iterdir()] == ["4-0"]


def test_clusters_are_made_again_by_name_of_what_changed(select, found):
  _, folder = select(groups="kmeans", clusters=4)
  path = folder / "clusters/4-0/clusters.parquet"
  before = path.read_bytes()
  path.write_bytes(before[:-9] + b"?" + before[-8:])
  select(groups="kmeans", clusters=4, budget="9")
  assert found == [4, 4] and path.read_bytes() == before
  log = folder / "log.txt"
  assert "clusters/4-0 again: clusters.parquet is damaged" in log.read_text()
  marker = folder / "scores/provenance.json"
  scores = json.loads(marker.read_text())
  marker.write_text(json.dumps({**scores, "digest": "0" * 64}))
  select(groups="kmeans", clusters=4, budget="8")
  assert found == [4, 4, 4] and path.read_bytes() == before
  assert "clusters/4-0 again: scores changed" in log.read_text()


def spoil_embedding(folder, line, also_loss):
  path = sorted((folder / "scores/embeddings").glob("*.npy"))[0]
  values = np.load(path)
  values[line] = np.nan
  np.save(path, values)
  if also_loss:
    path = sorted((folder / "scores").glob("*.parquet"))[0]
    table = pq.read_table(path)
    loss = table["loss"].to_numpy().copy()
    loss[line] = np.nan
    place = table.column_names.index("loss")
    pq.write_table(table.set_column(place, "loss", pa.array(loss)), path)


def test_rows_without_a_finite_embedding(select):
  _, folder = select(lambda run: None)
  spoil_embedding(folder, 2, also_loss=False)
  with pytest.raises(InputError, match=r"embeddings of 1 of .* are not finite"):
    select(groups="kmeans", clusters=4)
  spoil_embedding(folder, 2, also_loss=True)
  select(groups="kmeans", clusters=3)
  table = pq.read_table(folder / "clusters/3-0/clusters.parquet").to_pydict()
  assert table["cluster"][2] == -1
  found = read_selection(folder)
  assert found["reason"][table["row"][2]] == "not a number"
  assert sum(found["kept"]) == round(0.25 * (len(table["row"]) - 1))


def test_scores_without_embeddings_have_no_clusters(select):
  _, folder = select(lambda run: None)
  for path in (folder / "scores/embeddings").glob("*.npy"):
    np.save(path, np.load(path)[:, :0])
  with pytest.raises(InputError, match="hold no embeddings"):
    select(COMMANDS["select"], groups="kmeans")
  select(COMMANDS["select"], groups="source")
