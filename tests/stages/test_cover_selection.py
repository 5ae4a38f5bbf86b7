"""Quotas by kl and rows by covering, from the settings to the selection."""

import json

import pyarrow.parquet as pq


def read_kept(folder):
  table = pq.read_table(folder / "arms/main/selection/selection.parquet").to_pydict()
  return [row for row, kept in zip(table["row"], table["kept"], strict=True) if kept]


def test_groups_keep_their_numbers_and_other_rows(select):
  tables, rows = [], []
  for within in ("uniform", "cover"):
    _, folder = select(within=within, budget="25", groups="source")
    path = folder / "arms/main/selection/summary.json"
    summary = json.loads(path.read_text())
    assert abs(summary["certificate"]["gap"]) < 1e-9
    tables.append([group["kept"] for group in summary["groups"]])
    rows.append(read_kept(folder))
  assert tables[0] == tables[1] and rows[0] != rows[1]
