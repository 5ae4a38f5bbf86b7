"""What select says of suspects that share one answer."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.stages import COMMANDS
from tests import small_run
from tests.data.pools_on_the_spot import talk, write_records

ROWS = 80


def raise_loss(scores):
  """Makes the rows of one answer those of the highest loss."""
  for path in scores.glob("part-*.parquet"):
    table = pq.read_table(path)
    rows = table["row"].to_numpy()
    loss = pa.array(rows / 1000 + rows % 2, table["loss"].type)
    place = table.column_names.index("loss")
    pq.write_table(table.set_column(place, "loss", loss), path)


@pytest.fixture
def select(base, tmp_path):
  """Selects from a pool of two answers, whose losses lie apart."""
  records = [
    {
      "id": f"id-{row}",
      "conversations": talk(f"Is {row} red?", "Yes." if row % 2 else "no"),
    }
    for row in range(ROWS)
  ]
  data = write_records(tmp_path / "pool.json", records)
  settings = {
    "pool.demo.rows": 0,
    "pool.data": data,
    "evaluate.tasks": None,
    "score.model": str(base),
    "select.control": False,
    "select.groups": "source",
  }
  folder = tmp_path / "work"

  def call(**options):
    own = {f"select.{name}": value for name, value in options.items()}
    with small_run.open_run(folder, base, **settings, **own) as run:
      if not (folder / "scores").exists():
        COMMANDS["check"](run)
        COMMANDS["score"](run)
        raise_loss(folder / "scores")
      COMMANDS["select"](run)
    summary = folder / "arms/main/selection/summary.json"
    return json.loads(summary.read_text())["warnings"], folder

  return call


def test_an_answer_that_suspects_share_is_named(select):
  warnings, folder = select(bound=0.25)
  assert len(warnings) == 2  # the selection, and its one group
  said = (folder / "log.txt").read_text()
  for text, place in zip(warnings, ("rows have", "rows of text have"), strict=True):
    assert text.startswith(
      f"20 of the 20 suspect {place} the answer 'Yes.', as have 50%"
    )
    assert f"select: {text}" in said
  assert select(bound=0.2)[0] == []  # 16 suspects are too few
  assert select(bound="none")[0] == []


def test_a_table_without_answers_says_so(select):
  _, folder = select(bound="none")
  table = pq.read_table(folder / "pool.parquet").drop_columns(["answer"])
  pq.write_table(table, folder / "pool.parquet")
  (warning,), _ = select(bound=0.25)
  assert (
    "was written by an earlier version" in warning and "check the pool again" in warning
  )
  assert select(strategy="random")[0] == []
