"""select, its files of ids and shares, the sweep, and explain, on one score table."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax import main
from mllm_selector_jax.configs import default
from mllm_selector_jax.pipeline.explain_rows import (
  NAMED,
  OFF,
  explain_rows,
  find_smallest_budget,
  nearest,
)
from mllm_selector_jax.selection import strategies
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError


def read_selection(folder, arm="main"):
  return pq.read_table(folder / f"arms/{arm}/selection/selection.parquet").to_pydict()


def kept_groups(table):
  return {g for g, k in zip(table["group_name"], table["kept"], strict=True) if k}


def summary(folder):
  return json.loads((folder / "arms/main/selection/summary.json").read_text())


def test_every_strategy_selects_from_one_score_table(select):
  for name in strategies.STRATEGIES:
    own = {"strategy": name, "budget": "20", "groups": "source"}
    _, folder = select(**own, reference="row=3,row=4" if name == "reference" else None)
    found = read_selection(folder)
    assert sum(found["kept"]) == 20, name
    assert len(json.loads((folder / "arms/main/selection/selected.json").read_text()))


def test_the_table_says_for_every_row_where_it_stands(select):
  _, folder = select(groups="source*necessity", target="pool")
  table = read_selection(folder)
  groups = {each["group"]: each for each in summary(folder)["groups"]}
  for i, group in enumerate(table["group"]):
    if group is None:
      assert table["reason"][i].startswith("set aside") and not table["kept"][i]
      continue
    assert table["group_name"][i] == groups[group]["name"]
    assert table["target_share"][i] == pytest.approx(groups[group]["target_share"])
    assert table["reached_share"][i] == pytest.approx(groups[group]["reached_share"])
  scored_rows = [
    i for i, rank in enumerate(table["necessity_rank"]) if rank is not None
  ]
  best = min(scored_rows, key=lambda i: table["necessity_rank"][i])
  assert table["necessity_rank"][best] == 0 and table["necessity"][best] == 1
  assert abs(summary(folder)["certificate"]["gap"]) < 1e-9


def test_ids_and_shares_come_from_files(select, tmp_path):
  _, folder = select()
  table = read_selection(folder)
  names = [i for i, g in zip(table["id"], table["group"], strict=True) if g is not None]
  (tmp_path / "keep.txt").write_text("\n".join(names[:3]) + "\n")
  (tmp_path / "drop.json").write_text(json.dumps([{"id": name} for name in names[3:6]]))
  select(force_in=str(tmp_path / "keep.txt"), leave_out=str(tmp_path / "drop.json"))
  reasons = dict(zip(table["id"], read_selection(folder)["reason"], strict=True))
  assert {reasons[name] for name in names[:3]} == {"forced in"}
  assert {reasons[name] for name in names[3:6]} == {"left out"}
  # A file that says something else makes another arm, its name does not.
  (tmp_path / "keep.txt").write_text(names[7])
  select(force_in=str(tmp_path / "keep.txt"))
  (tmp_path / "keep.txt").rename(tmp_path / "same.txt")
  select(force_in=str(tmp_path / "same.txt"))
  arms = sorted(p.name for p in (folder / "arms").iterdir() if p.is_dir())
  named = "kl-25%-seed0-force_in=1_given"
  assert arms.count(named) == 1 and len(arms) == 4, arms  # with the link `main`
  assert (folder / "arms/main").readlink().name == named

  group = summary(select(groups="source")[1])["groups"][0]["name"]
  (tmp_path / "shares.json").write_text(json.dumps({group: 1.0}))
  select(
    groups="source",
    target="given",
    target_shares=str(tmp_path / "shares.json"),
    floor=0.0,
    budget="3",
  )
  table = read_selection(folder)
  kept = {g for g, k in zip(table["group_name"], table["kept"], strict=True) if k}
  assert kept == {group}
  alike = [
    i for i, g in zip(table["id"], table["group_name"], strict=True) if g == group
  ]
  select(groups="source", target="like", like=alike[:2], floor=0.0, budget="3")
  table = read_selection(folder)
  assert kept == {
    g for g, k in zip(table["group_name"], table["kept"], strict=True) if k
  }


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"force_in": "nothing.txt"}, "there is no such file"),
    (
      {"force_in": "no-such-id"},
      "select.force_in: no row of the pool has the id 'no-such-id'",
    ),
    ({"target": "given", "target_shares": "{"}, "neither JSON nor a JSON file"),
    (
      {"target": "given", "target_shares": '{"x": "y"}'},
      "it must map group names to numbers",
    ),
    ({"target": "given", "target_shares": '{"x": 1}'}, "'x', which is no group"),
    ({"target": "given"}, "target_shares are not given"),
    ({"like": "a,b"}, 'go with target "like"'),
    ({"strategy": "ifd"}, "needs the signal 'ifd', which was not scored"),
    ({"visual": True}, "select.visual needs the signal 'visual'"),
    ({"groups": "colour"}, "names 'colour'; allowed are kmeans, necessity"),
    ({"strategy": "best"}, "select.strategy is 'best'; allowed: kl"),
    ({"groups": "loss"}, "too many for groups"),
  ],
)
def test_wrong_settings_say_what_to_do(select, scored, settings, message):
  if "needs the signal" in message:
    _, folder = select(lambda run: None)
    for part in (folder / "scores").glob("part-*.parquet"):
      table = pq.read_table(part).drop_columns(["ifd", "visual"])
      pq.write_table(table, part)
  with pytest.raises(InputError, match=message):
    select(**settings)


def test_a_sweep_is_many_selections_of_one_score_table(select):
  budgets, weights = "10,20,25%", "0.1,1"
  settings = {"sweep.budgets": budgets, "sweep.kl_weights": weights}
  _, folder = select(**settings)
  lines = pq.read_table(folder / "sweep/sweep.parquet").to_pylist()
  assert [(each["budget"], each["kl_weight"]) for each in lines] == [
    (budget, weight) for weight in (0.1, 1.0) for budget in ("10", "20", "25%")
  ]
  kept = pq.read_table(folder / "sweep/kept.parquet")
  for line in lines:
    own = kept[f"{line['budget']} {line['kl_weight']:g}"].to_numpy()
    assert own.sum() == line["kept"] and abs(line["gap"]) < 1e-9
  assert np.all(kept["10 1"].to_numpy() <= kept["20 1"].to_numpy())
  select(budget="20", kl_weight=1.0)
  table = read_selection(folder)
  alone = [row for row, k in zip(table["row"], table["kept"], strict=True) if k]
  assert kept["row"].to_numpy()[kept["20 1"].to_numpy()].tolist() == alone


def test_explain_says_why_and_what_would_change_it(select):
  _, folder = select(groups="source", duplicates=0.9)
  table = read_selection(folder)
  by_reason = {}
  for i, reason in enumerate(table["reason"]):
    by_reason.setdefault(reason, i)
  assert "below threshold" in by_reason and "kept" in by_reason
  names = tuple(table["id"][i] for i in by_reason.values())
  texts, _ = select(lambda run: explain_rows(run, names))
  for reason, i in by_reason.items():
    text = next(each for each in texts if f"(row {i:,}," in each)
    assert text.startswith(table["id"][i])
    if reason.startswith("set aside"):
      assert reason.removeprefix("set aside: ") in text
      continue
    assert f"{'kept' if table['kept'][i] else 'not kept'}: {reason} (" in text
    if table["kept"][i]:
      rank = table["rank"][i] + 1
      assert f"; rank {rank:,} of {sum(table['kept']):,}" in text
    assert f"group: {table['group_name'][i]}," in text and "nearest kept row" in text
    if reason == "below threshold":
      least = int(text.split("a budget of ")[1].split()[0])
      select(groups="source", duplicates=0.9, budget=str(least))
      assert read_selection(folder)["kept"][i]
      select(groups="source", duplicates=0.9, budget=str(least - 1))
      assert not read_selection(folder)["kept"][i]
    if reason.startswith("suspect: upper"):
      assert "without select.bound:" in text


def test_explain_names_options_that_there_are(select):
  options = {*NAMED.values(), *OFF}
  assert options <= set(default.get_config().select)
  given = {"force_in": "row=6,row=9,row=10", "leave_out": "row=7,row=8"}
  _, folder = select(**given)
  texts, _ = select(lambda run: explain_rows(run, ("row=6,row=7",)))
  for text, row, name in zip(texts, (6, 7), given, strict=True):
    assert f"(row {row}," in text
    assert text.splitlines()[-2] == f"  would change it: taking it out of select.{name}"
  # Budgets below the rows that are forced in are none.
  kept = str(read_selection(folder)["reason"].index("kept"))
  (text,), _ = select(lambda run: explain_rows(run, (f"row={kept}",)))
  assert int(text.split("a budget below ")[1].split()[0]) > 3


def test_explain_refuses_what_it_cannot_explain(select):
  with pytest.raises(InputError, match="run `mllm-selector select`"):
    select(lambda run: explain_rows(run, ("a",)))
  select()
  with pytest.raises(InputError, match="--id: no row of the pool has the id 'nobody'"):
    select(lambda run: explain_rows(run, ("nobody",)))
  with pytest.raises(InputError, match="needs --id"):
    select(COMMANDS["explain"])


def test_explain_is_a_command(select, capfd):
  _, folder = select()
  name = read_selection(folder)["id"][0]
  command = ["mllm-selector", "explain", "--config=demo", f"--workdir={folder}"]
  assert main.run([*command, f"--id={name}"]) == 0
  said = capfd.readouterr().err
  assert f"{name} (row 0," in said and "nearest kept row" in said
  # Of the arm as it was made, whatever the seed is now.
  assert main.run([*command, f"--id={name}", "--config.rng_seed=7"]) == 0
  assert said.split("(row 0,")[1] == capfd.readouterr().err.split("(row 0,")[1]
  assert main.run(command) == 2
  assert "needs --id" in capfd.readouterr().err
  assert main.run([*command, f"--id={name}", "--arm=none"]) == 2


def test_nearest_and_smallest_against_plain_search():
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(50, 4)).astype(np.float32)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  among = np.arange(10, 50)
  vectors = UnitRows(rows)
  place, cosine = nearest(vectors, 3, among)
  assert place == among[(rows[among] @ rows[3]).argmax()]
  assert cosine == pytest.approx((rows[among] @ rows[3]).max())
  assert nearest(vectors, 3, among[:0]) is None
  for first in (1, 7, 20):
    assert find_smallest_budget(lambda rows, first=first: rows >= first, 20) == first
  assert find_smallest_budget(lambda rows: False, 20) is None
