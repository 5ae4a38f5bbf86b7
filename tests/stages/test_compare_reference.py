"""A comparison with the mixture that is trained on today, from end to end."""

import json
import math

import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.pipeline.explain_rows import explain_rows
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run

SMALL = {
  "pool.demo.rows": 90,
  "seed.rows": "10",
  "tune.batch": 8,
  "compare.strategies": "kl",
  "compare.budgets": "50%ref",
  "compare.seeds": "3",
  "compare.full": False,
  "compare.match": "steps",
}
ARM = "reference-100%ref-3"


@pytest.fixture(scope="module")
def compared(base, tmp_path_factory):
  """A workdir after `compare`, its settings, and the records of the reference."""
  folder = tmp_path_factory.mktemp("compared")
  work, path = folder / "work", folder / "today.json"
  with small_run.open_run(work, base, **SMALL) as current:
    COMMANDS["check"](current)
  pool = read_table(work / "pool.parquet")
  records = json.loads((work / "demo_pool/pool.json").read_text())
  aside = next(row for row in range(90) if not pool.ok[row])
  rows = sorted({*range(20, 44), aside})
  path.write_text(json.dumps([records[row] for row in rows]))
  settings = {**SMALL, "select.reference": str(path), "select.leave_out": "row=22"}
  with small_run.open_run(work, base, **settings) as current:
    COMMANDS["compare"](current)
  return work, settings, [row for row in rows if pool.ok[row] and row != 22]


def read(path):
  return json.loads(path.read_text())


def read_kept(work, arm):
  table = pq.read_table(work / f"arms/{arm}/selection/selection.parquet").to_pydict()
  return [row for row, kept in zip(table["row"], table["kept"], strict=True) if kept]


def test_the_arm_has_the_usable_rows_of_the_reference(compared):
  work, _, rows = compared
  assert read_kept(work, ARM) == rows
  text = (work / "log.txt").read_text()
  aside = 25 - 1 - len(rows)
  assert (
    f"Warning: select.reference: of its 25 rows, the check set aside {aside} and"
    f" select.leave_out leaves out 1; the reference is the other {len(rows)}."
  ) in text and aside > 0
  summary = read(work / f"arms/{ARM}/selection/summary.json")
  assert (summary["strategy"], summary["budget"]) == ("reference", "100%ref")
  assert summary["reasons"]["in the reference"] == len(rows)


def test_budgets_are_of_its_size_and_steps_are_its_own(compared):
  work, _, rows = compared
  lines = {x["arm"]: x for x in read(work / "compare/results.json")["arms"]}
  assert list(lines) == [ARM, "random-50%ref-3", "kl-50%ref-3"]
  half = math.floor(len(rows) / 2 + 0.5)
  assert [x["rows"] for x in lines.values()] == [len(rows), half, half]
  assert {x["steps"] for x in lines.values()} == {math.ceil(len(rows) / 8)}
  assert 22 not in read_kept(work, "kl-50%ref-3")


def test_results_tables_and_costs_know_the_reference(compared):
  work, _, _ = compared
  results = read(work / "compare/results.json")
  assert results["plan"]["budgets"] == ["50%ref"]
  assert [x["strategy"] for x in results["against_reference"]] == ["random", "kl"]
  for name in ("table.md", "compare.html"):
    text = (work / "compare" / name).read_text()
    assert "Against the reference" in text and "minus reference" in text
    assert "one seed has no interval" in text
  columns = pq.read_schema(work / "compare/table.parquet").names
  assert {"minus_reference", "minus_reference_holm"} <= set(columns)
  costs = {x["strategy"]: x for x in read(work / "compare/costs.json")["table"]}
  assert costs["reference"]["selection_flops"] == 0 < costs["kl"]["selection_flops"]


def test_its_rows_are_explained_and_exported(base, compared):
  work, settings, rows = compared
  settings = settings | {"rng_seed": 3, "export_selection.arm": ARM}
  settings["export_selection.formats"] = "verbatim,ids"
  with small_run.open_run(work, base, **settings) as current:
    inside, outside = explain_rows(current, (f"row={rows[0]},row=22",), ARM)
    COMMANDS["export-selection"](current)
  assert "kept: in the reference (select.reference names it" in inside
  assert "not kept: left out" in outside
  ids = (work / f"arms/{ARM}/exports/ids/ids.txt").read_text().splitlines()
  assert [int(line.split("\t")[1]) for line in ids[1:]] == rows


def test_one_budget_of_the_reference_for_a_single_selection(base, compared, tmp_path):
  work, settings, rows = compared
  with small_run.open_run(work, base, **settings) as current:
    scores = current.workdir.at_seed(3, False).scores.path
  single = {
    "pool.demo.rows": 90,
    "score.table": str(scores),
    "select.reference": ",".join(f"row={row}" for row in rows),
    "select.budget": "200%ref",
    "select.sweep.budgets": "10%,100%ref",
  }
  with small_run.open_run(tmp_path, base, **single) as current:
    for name in ("check", "score", "select"):
      COMMANDS[name](current)
  assert len(read_kept(tmp_path, "main")) == 2 * len(rows)
  lines = pq.read_table(tmp_path / "sweep/sweep.parquet").to_pylist()
  assert [x["kept"] for x in lines][1] == len(rows)


@pytest.mark.parametrize(
  ("reference", "message"),
  [
    ("row=3,nowhere,lost", r"no row of the pool has 2 of the 3 ids: 'lost', 'nowhere'"),
    ("row=3,row=900", r"entry 1 .*, which has 90 rows \(1 such\)"),
  ],
)
def test_rows_that_the_pool_lacks_are_counted_before_anything_is_trained(
  base, tmp_path, reference, message
):
  settings = {**SMALL, "select.reference": reference}
  with small_run.open_run(tmp_path, base, **settings) as current:
    with pytest.raises(InputError, match=rf"^select.reference: {message}") as caught:
      COMMANDS["compare"](current)
  assert "must hold all rows of the reference" in str(caught.value)
  assert not (tmp_path / "seeds/3/seed").exists()


def test_a_budget_that_leaves_no_row_is_refused_before_anything_is_trained(
  base, tmp_path
):
  settings = {**SMALL, "select.reference": "row=20,row=22", "compare.budgets": "1%ref"}
  with small_run.open_run(tmp_path, base, **settings) as current:
    with pytest.raises(InputError, match=r"1%ref, and the reference has 2 rows"):
      COMMANDS["compare"](current)
  assert not (tmp_path / "seeds/3/seed").exists()
