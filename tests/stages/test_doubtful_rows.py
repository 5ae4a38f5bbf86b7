"""What select and the report say of kept rows whose answers are doubtful."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.pages import gather, picks
from mllm_selector_jax.stages import COMMANDS
from tests import small_run
from tests.data.pools_on_the_spot import talk, write_records

ROWS = 80
ALONE, TWIN = 0, 2  # rows whose near rows, or a row with the same question, differ


@pytest.fixture
def workdir(base, tmp_path):
  """A selection of all rows of a pool of two answers, of which the model knows one.

  The seed model gives "Yes." everywhere. Embeddings lie apart except for `ALONE`, which
  lies among rows that answer "Yes.", and `TWIN`, which asks what row 3 asks.
  """
  records = [
    {
      "id": f"id-{row}",
      "conversations": talk(
        f"Is {3 if row == TWIN else row} red?", "Yes." if row % 2 else "no"
      ),
    }
    for row in range(ROWS)
  ]
  settings = {
    "pool.demo.rows": 0,
    "pool.data": write_records(tmp_path / "pool.json", records),
    "evaluate.tasks": None,
    "score.model": str(base),
    "select.control": False,
    "select.groups": "source",
    "select.budget": "100%",
  }
  folder = tmp_path / "work"
  with small_run.open_run(folder, base, **settings) as run:
    COMMANDS["check"](run)
    COMMANDS["score"](run)
    set_scores(folder / "scores")
    COMMANDS["select"](run)
  return folder


def set_scores(scores):
  rng = np.random.default_rng(0)
  places = rng.normal(size=(ROWS, 256)).astype(np.float32)
  places[ALONE] = places[1] + places[5]
  for row in range(9, 19, 2):
    places[row] = places[ALONE] + 0.1 * places[row]
  places[TWIN] = places[3]
  for path in sorted(scores.glob("part-*.parquet")):
    table = pq.read_table(path)
    rows = table["row"].to_numpy()
    turned = rows % 2 == 0
    columns = {
      "loss": np.where(turned, 3.0, 0.1) + rows / 1000,
      "accuracy": np.where(turned, 0.5, 1.0),
      "el2n": np.where(rows == ALONE, 1.3, np.where(turned, 0.5, 0.1))
      * (1 - 1 / table["supervised"].to_numpy()),
    }
    for name, values in columns.items():
      place = table.column_names.index(name)
      array = pa.array(values, table[name].type)
      table = table.set_column(place, name, array)
    pq.write_table(table, path)
    np.save(scores / "embeddings" / f"{path.stem}.npy", places[rows])


def test_doubts_are_written_said_and_shown(workdir):
  folder = workdir / "arms/main/selection"
  table = pq.read_table(folder / "selection.parquet")
  doubt = table["doubt"].to_pylist()
  assert doubt[ALONE].endswith("of 8 near rows answer 'Yes.'")
  assert int(doubt[ALONE].split()[0]) >= 5
  assert doubt[TWIN] == "a row with the same question answers 'Yes.'"
  assert sum(text is not None for text in doubt) == 2
  # One answer is given everywhere, so the model does not know the group.
  assert not any(table["judged"].to_pylist() + table["confirmed"].to_pylist())
  summary = json.loads((folder / "summary.json").read_text())
  assert summary["doubtful"] == 2
  assert "kept rows that are doubtful: 2" in (workdir / "log.txt").read_text()

  run = gather.read_run(workdir)
  shown = {pick.name: pick for pick in picks.pick_rows(run.pool, run.main.selection)}
  assert sorted(shown["Kept, but doubtful"].rows) == [ALONE, TWIN]
  assert "2 of 80 kept rows" in shown["Kept, but doubtful"].words
  assert "most near rows have one other answer (1)" in shown["Kept, but doubtful"].words
