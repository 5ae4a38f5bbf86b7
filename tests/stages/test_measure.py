"""measure: lists of ids in every form, beside random rows and the pool."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax import main
from mllm_selector_jax.pipeline.measure_sets import measure_files
from mllm_selector_jax.selection import measures
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests.stages.test_select_stage import read_selection


def measured(select, *files, **overrides):
  return select(lambda run: measure_files(run, tuple(map(str, files))), **overrides)[0]


def scored_ids(folder):
  table = read_selection(folder)
  return [i for i, g in zip(table["id"], table["group"], strict=True) if g is not None]


def test_every_form_of_a_list_gives_the_same_figures(select, tmp_path):
  _, folder = select(control=True)
  chosen = folder / "arms/main/selection"
  ids = [record["id"] for record in json.loads((chosen / "selected.json").read_text())]
  # An id of the drawn pool may be that of two rows.
  kept = pq.read_table(chosen / "selection.parquet", filters=[("kept", "=", True)])
  rows = [f"row={row}" for row in kept["row"].to_pylist()]
  (tmp_path / "lines.txt").write_text("\n".join(rows[::-1]) + "\n" + rows[0])
  (tmp_path / "ids.json").write_text(json.dumps(rows))
  files = [chosen / "selected.json", chosen / "selection.parquet"]
  files += [tmp_path / "lines.txt", tmp_path / "ids.json"]
  found = measured(select, *files)
  lines = found["sets"]
  assert [line["name"] for line in lines] == [
    *map(str, files),
    f"random, {len(ids)} rows",
    "the pool",
  ]
  own = set(measures.Measures._fields)
  figures = [{k: line[k] for k in own} for line in lines]
  assert figures[0] == figures[1] == figures[2] == figures[3] != figures[4]
  assert lines[2]["repeated"] == 1 and lines[0]["repeated"] == 0
  # The random rows are those of the control, and the divergence is the sweep's.
  other = folder / "arms/random/selection/selected.json"
  assert measured(select, other)["sets"][0] | {"name": ""} == lines[4] | {
    "name": "",
    **{key: lines[0][key] for key in ("entries", "repeated", "unscored", "notes")},
  }
  select(**{"sweep.budgets": "25%"})
  swept = pq.read_table(folder / "sweep/sweep.parquet").to_pylist()[0]
  for name in ("divergence", "effective_groups"):
    assert swept[name] == lines[0][name]
  pool = lines[-1]
  assert pool["rows"] == found["pool_rows"] and pool["coverage_radius"] == 0
  json.dumps(found, allow_nan=False)


def test_figures_against_plain_numpy(select, tmp_path):
  _, folder = select(groups="source", target="uniform", bound=0.0, duplicates=0.9)
  ids = scored_ids(folder)[3:40:4]
  (tmp_path / "ids.txt").write_text("\n".join(ids))
  settings = {"groups": "source", "target": "uniform", "duplicates": 0.9}
  line = measured(select, tmp_path / "ids.txt", **settings, bound=0.0)["sets"][0]
  parts = sorted((folder / "scores/embeddings").glob("*.npy"))
  vectors = np.concatenate([np.load(part) for part in parts]).astype(np.float64)
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  kept = np.isin(scored_ids(folder), ids)
  distance = np.where(kept, 0, 1 - (vectors @ vectors[kept].T).max(1))
  assert line["coverage_radius"] == pytest.approx(distance.max(), abs=2e-6)
  assert line["mean_distance"] == pytest.approx(distance.mean(), abs=2e-6)
  similar = vectors[kept] @ vectors[kept].T - 2 * np.eye(len(ids))
  assert line["duplicates"] == pytest.approx((similar.max(1) > 0.9).mean())
  source = [i.rsplit("_", 1)[0] for i in scored_ids(folder)]
  assert line["rows"] == len(ids) and len(set(source)) > 1


def test_without_embeddings_distances_are_left_out_with_the_reason(select, tmp_path):
  _, folder = select()
  (tmp_path / "ids.txt").write_text("\n".join(scored_ids(folder)[:5]))
  stored = sorted((folder / "scores/embeddings").glob("*.npy"))
  values = np.load(stored[0])
  values[0] = np.inf
  np.save(stored[0], values)
  found = measured(select, tmp_path / "ids.txt", groups="source")
  assert "not finite in 1 of" in found["missing"]["coverage_radius"]
  for path in stored:
    np.save(path, np.load(path)[:, :0])
  found = measured(select, tmp_path / "ids.txt", groups="source")
  assert set(found["missing"]) == {"coverage_radius", "mean_distance", "duplicates"}
  assert "no embeddings" in found["missing"]["duplicates"]
  line = found["sets"][0]
  assert line["coverage_radius"] is None and line["effective_groups"] > 1
  with pytest.raises(InputError, match="hold no embeddings"):
    measured(select, tmp_path / "ids.txt", groups="kmeans", clusters=5)


def test_bad_lists_say_what_to_do(select, tmp_path):
  _, folder = select()
  pool = pq.read_table(folder / "pool.parquet").to_pydict()
  aside = [
    i for i, s in zip(pool["id"], pool["status"], strict=True) if s != "ok" and i
  ]
  ids = scored_ids(folder)
  aside = [i for i in aside if i not in ids]
  file = tmp_path / "ids.txt"
  cases = [
    ("\n".join([ids[0], "nobody", "no one"]), "2 of the 3 ids: 'no one', 'nobody';"),
    ("", "names no id"),
    ("[1, ", "incomplete JSON"),
    ('[{"name": 1}]', "entry 0 has no id"),
    ("PAR1 and no more", "Parquet file is damaged"),
    (b"\x80\xfe\x00", "not a text file, or incomplete JSON"),
    ("\n".join(aside), "none of its .* has a score"),
  ]
  for text, message in cases:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
      measured(select, file)
  file.write_text("\n".join([ids[0], *aside]))
  assert measured(select, file)["sets"][0]["unscored"] == len(set(aside)) > 0
  file.write_text("\n".join([*ids[:9], "nobody"]))
  line = measured(select, file, most_missing=0.1)["sets"][0]
  assert line["rows"] >= 9 and "match no row of the pool: 1, of 10" in line["notes"][-1]
  with pytest.raises(InputError, match=r"1 match no row .*most_missing=0.05 allows 0"):
    measured(select, file, most_missing=0.05)
  with pytest.raises(InputError, match="there is no such file"):
    measured(select, tmp_path / "none.txt")
  with pytest.raises(InputError, match="no column id, row or hash; it has"):
    pq.write_table(pa.table({"name": ids}), tmp_path / "names.parquet")
    measured(select, tmp_path / "names.parquet")
  with pytest.raises(InputError, match="measure needs --ids"):
    select(COMMANDS["measure"])


def test_measure_is_a_command(select, tmp_path, capfd):
  _, folder = select()
  (tmp_path / "a.txt").write_text("\n".join(scored_ids(folder)[:12]))
  (tmp_path / "b.txt").write_text("\n".join(scored_ids(folder)[20:50]))
  given = f"--ids={tmp_path / 'a.txt'},{tmp_path / 'b.txt'}"
  command = ["mllm-selector", "measure", "--config=demo", f"--workdir={folder}", given]
  out = tmp_path / "out.json"
  assert main.run([*command, f"--out={out}"]) == 0
  said = capfd.readouterr().err
  assert "a.txt" in said and "random, 12 rows" in said and "random, 30 rows" in said
  assert "Coverage radius" in said and "nearer than a twentieth of the mean" in said
  assert "a.txt, beside as many random rows: the mean distance" in said
  found = json.loads(out.read_text())
  assert [line["rows"] for line in found["sets"]][:2] == [12, 30]
  before = out.read_bytes()
  assert main.run([*command, f"--out={out}"]) == 0 and out.read_bytes() == before
  assert main.run([*command, f"--out={tmp_path / 'no/out.json'}"]) == 2
  assert "there is no such folder" in capfd.readouterr().err


def test_the_report_has_the_measures_of_the_arm_as_it_is(select):
  _, folder = select(control=False)
  select(COMMANDS["report"], control=False)
  path = folder / "measures/measures.json"
  found = json.loads(path.read_text())
  names = [line["name"] for line in found["sets"]]
  rows = found["sets"][0]["rows"]
  assert names == ["main (kl)", f"random, {rows} rows", "the pool"]
  chosen = folder / "arms/main/selection/selected.json"
  again = measured(select, chosen)["sets"]
  for before, now in zip(found["sets"], again, strict=True):
    assert all(now[key] == before[key] for key in measures.Measures._fields)
  radius = f"{found['sets'][0]['coverage_radius']:.4f}"
  assert radius in (folder / "report.html").read_text()
  select(COMMANDS["report"], control=False)
  assert "measures is unchanged, kept" in (folder / "log.txt").read_text()
  select(budget="9", strategy="top", control=False)
  select(COMMANDS["report"], control=False)
  assert json.loads(path.read_text())["sets"][0]["rows"] == 9
  assert "main (top)" in (folder / "report.html").read_text()


def test_a_target_that_the_arm_did_not_read_leaves_the_report_whole(select):
  given = {"target": "given", "target_shares": '{"nobody": 1}', "strategy": "top"}
  _, folder = select(**given)
  select(COMMANDS["report"], **given)
  page = (folder / "report.html").read_text()
  assert "Not measured:" in page and "which is no group" in page
