"""Selections that cannot be, and odd ones that must be, through the command line."""

import json
import re
import shutil
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.main import run
from tests.bad_input.pools import talk, write_pool

ROWS = 24
ROUNDING = 2.0**-40  # of gains


@pytest.fixture(scope="module")
def scored(tmp_path_factory, base):
  """The command line on a pool of its own, scored; gives a function and a folder."""
  folder = tmp_path_factory.mktemp("pool")
  answers = ("red", "blue", "a green bus")
  rows = [
    talk(f"row-{n}", f"what is {n}?", answers[n % 3], source=f"part {n % 2}")
    for n in range(ROWS)
  ]
  write_pool(folder, rows)

  def give(name, work="work", **settings):
    settings = {
      "model.path": base,
      "score.model": base,
      "pool.demo.rows": 0,
      "pool.data": folder / "pool.json",
      "pool.images": folder / "images",
      "select.control": False,
      "select.budget": 6,
      **{key.replace("__", "."): value for key, value in settings.items()},
    }
    given = [f"--config.{key}={value}" for key, value in settings.items()]
    return run(["x", name, "--config=demo", f"--workdir={folder / work}", *given])

  assert give("check") == give("score") == 0
  return give, folder


@pytest.fixture
def command(scored, capsys):
  """A function of command and settings: the exit status and what was said."""

  def give(name, **settings):
    capsys.readouterr()
    with warnings.catch_warnings():
      warnings.simplefilter("error", RuntimeWarning)  # such as a division by zero
      status = scored[0](name, **settings)
    said = capsys.readouterr().err
    assert "Traceback (" not in said
    return status, said

  return give


@pytest.mark.parametrize(
  ("settings", "words"),
  [
    (
      {"strategy": "ifd"},
      "select.strategy ifd needs the signal 'ifd', which was not scored; add it to"
      " score.signals and run `mllm-selector score` again",
    ),
    ({"strategy": "visnec"}, "select.strategy visnec needs the signal 'visual'"),
    ({"visual": True}, "select.visual needs the signal 'visual', which was not scored"),
    ({"signal": "excess"}, "select.signal needs the signal 'excess', which was not"),
    (
      {"signal": "los"},
      "select.signal is 'los', which is not a signal; there are loss,",
    ),
    (
      {"groups": "colour"},
      "select.groups names 'colour'; allowed are kmeans, necessity",
    ),
    ({"groups": "source*colour"}, "select.groups names 'colour'"),
    (
      {
        "groups": "source",
        "target": "given",
        "target_shares": '{"part 0": 0.5, "part 1": 0.2}',
      },
      "select.target_shares sum to 0.7, and the smallest is 0.2; they must",
    ),
    (
      {
        "groups": "source",
        "target": "given",
        "target_shares": '{"part 0": 1.5, "part 1": -0.5}',
      },
      "sum to 1, and the smallest is -0.5; they must not be negative",
    ),
    ({"floor": 1.5}, "select.floor is 1.5; it must be a number from 0 to 1"),
    (
      {"force_in": ",".join(f"row-{n}" for n in range(9))},
      "9 rows are forced in, above the budget of 6; raise the budget or force fewer",
    ),
  ],
)
def test_selections_that_cannot_be(command, settings, words):
  given = {f"select__{key}": value for key, value in settings.items()}
  status, said = command("select", **given)
  assert status == 2 and words in said
  assert len([line for line in said.splitlines() if line.startswith("Error: ")]) == 1


def test_floors_as_large_as_the_budget_leave_nothing_to_gains(command, scored):
  settings = {"select__groups": "source", "select__floor": 1.0}
  status, said = command("select", **settings)
  assert status == 0 and "proved optimal, gap" in said
  summary = read_summary(scored[1] / "work")
  assert abs(summary["certificate"]["gap"]) < ROUNDING
  assert [group["floor"] for group in summary["groups"]] == [3, 3]
  assert summary["threshold"] is None and summary["reasons"]["floor"] == 6


def rewrite_scores(folder, name, change):
  """A table of scores as if made elsewhere, with the loss changed."""
  made = folder / name
  shutil.copytree(folder / "work/scores", made)
  (made / "provenance.json").unlink()
  for path in sorted(made.glob("part-*.parquet")):
    table = pq.read_table(path)
    loss = change(table["loss"].to_numpy().copy())
    place = table.column_names.index("loss")
    pq.write_table(table.set_column(place, "loss", pa.array(loss)), path)
  return made


def read_summary(work):
  return json.loads((work / "arms/main/selection/summary.json").read_text())


def read_kept(work):
  table = pq.read_table(work / "arms/main/selection/selection.parquet").to_pydict()
  return [i for i, kept in zip(table["id"], table["kept"], strict=True) if kept]


def test_scores_that_are_no_number_are_set_aside_and_counted(command, scored):
  def spoil(loss):
    loss[[1, 4]] = np.nan, np.inf
    return loss

  given = {"work": "nan", "score__table": rewrite_scores(scored[1], "spoilt", spoil)}
  assert command("check", **given)[0] == 0
  status, said = command("score", **given)
  assert status == 0 and "loss of 2 rows is not finite" in said and "row-4" in said
  status, said = command("select", **given, select__budget="100%")
  assert (
    status == 0 and "2 rows are set aside: a score of theirs is not a number" in said
  )
  assert f"keeps {ROWS - 2} of {ROWS - 2} eligible rows" in said
  work = scored[1] / "nan"
  assert read_summary(work)["reasons"]["not a number"] == 2
  assert not {"row-1", "row-4"} & set(read_kept(work))
  assert command("report", **given)[0] == 0
  page = (work / "report.html").read_text()
  assert "a score that the strategy reads is not finite" in page


def test_no_score_is_a_number(command, scored):
  table = rewrite_scores(scored[1], "none", lambda loss: np.full_like(loss, np.nan))
  given = {"work": "empty", "score__table": table, "select__groups": "source"}
  assert command("check", **given)[0] == command("score", **given)[0] == 0
  status, said = command("select", **given)
  assert status == 2 and "No scored row is eligible" in said


@pytest.mark.parametrize("form", ["truncated", "kmeans", "source"])
def test_one_group_or_equal_scores_select_sensibly(command, scored, form):
  """One group (no row is truncated, or one cluster), and all scores equal."""
  table = scored[1] / "equal"
  if not table.exists():
    rewrite_scores(scored[1], "equal", lambda loss: np.full_like(loss, 0.5))
  kept = []
  for weight in (0.4, 0.0):
    for scores in (scored[1] / "work/scores", table):
      given = {
        "work": f"odd {scores.name}",
        "score__table": scores,
        "select__groups": form,
        "select__clusters": 1,
        "select__kl_weight": weight,
      }
      stages = ("check", "score", "select", *(["report"] if weight else []))
      for stage in stages:
        status, said = command(stage, **given)
        assert status == 0, said
      work = scored[1] / given["work"]
      summary = read_summary(work)
      proof = summary["certificate"]
      assert abs(proof["gap"]) < ROUNDING and summary["warnings"] == []
      groups = summary["groups"]
      assert len(groups) == (2 if form == "source" else 1)
      if scores is table and weight:  # nothing to choose by but the target
        assert [group["kept"] for group in groups] == [6 // len(groups)] * len(groups)
        assert {group["mean_necessity"] for group in groups} == {0.5}
        assert {group["suspects"] for group in groups} == {0}
      kept.append(read_kept(work))
      assert len(kept[-1]) == 6
      # Made again from nothing it is the same.
      shutil.rmtree(work / "arms")
      assert command("select", **given)[0] == 0 and read_kept(work) == kept[-1]
      if not weight:
        continue
      page = (work / "report.html").read_text()
      assert not re.search(r"\bnan\b", re.sub(r"data:\S+", "", page), re.I)
      assert "<strong>Warning.</strong>" not in page


def test_a_run_refuses_what_its_scores_would_not_hold_before_it_makes_them(
  command, scored
):
  before = sorted(path.name for path in (scored[1] / "work").rglob("*"))
  status, said = command("run", score__signals="('loss',)")
  assert status == 2 and "select.bound mixture needs the signal 'accuracy'" in said
  assert "or give --config.select.bound=quantile" in said
  assert sorted(path.name for path in (scored[1] / "work").rglob("*")) == before
