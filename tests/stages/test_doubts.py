"""Held-out bounds from end to end: folds, probe, what they cost and what follows."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.pipeline import candidates, heldout_models
from mllm_selector_jax.pipeline.explain_rows import explain_rows
from mllm_selector_jax.selection import heldout_loss
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError, Stopped
from tests import small_run


def read(path):
  return pq.read_table(path).to_pydict()


@pytest.fixture
def run_at(base, scored, tmp_path):
  """A run on a copy of the scored workdir."""
  folder = tmp_path / "work"
  shutil.copytree(scored, folder, symlinks=True)

  def call(stage=COMMANDS["select"], **overrides):
    settings = {"score.model": str(base), "select.control": False, **overrides}
    settings["score.signals"] = ("loss", "accuracy", "perplexity", "el2n", "grand")
    settings["score.signals"] += ("visual", "ifd")
    with small_run.open_run(folder, base, **settings) as current:
      return stage(current), folder

  return call


def test_halves_score_each_other_and_go_on_where_they_stopped(run_at, monkeypatch):
  settings = {"select.bound": "thorough", "select.groups": "source"}
  _, folder = run_at(**settings)
  scored = [
    row
    for path in sorted((folder / "scores").glob("*.parquet"))
    for row in read(path)["row"]
  ]
  halves = []
  for name in ("fold-1", "fold-2"):
    own = folder / "rounds" / name
    tuned = read(own / "seed/rows.parquet")["row"]
    held_out = [
      r for p in sorted((own / "scores").glob("*.parquet")) for r in read(p)["row"]
    ]
    assert sorted(tuned + held_out) == scored  # nothing is scored by what saw it
    halves.append(held_out)
  assert sorted(halves[0] + halves[1]) == scored
  assert abs(len(halves[0]) - len(halves[1])) <= len(scored) // 10
  pool = pq.read_table(folder / "pool.parquet", columns=["hash"])["hash"].to_pylist()
  assert not {pool[r] for r in halves[0]} & {pool[r] for r in halves[1]}
  found = read(folder / "doubts/thorough/doubts.parquet")
  assert found["row"] == scored and np.isfinite(found["loss"]).all()

  summary = json.loads((folder / "arms/main/selection/summary.json").read_text())
  assert summary["bound"]["flops"] > 0 and summary["options"]["bound"] == "thorough"
  spared = summary["bound"]["spared"]
  assert sum(each["rows"] for each in spared.values()) > 0
  left = len(scored) - sum(each["rows"] for each in spared.values())
  said = f"the bound thorough checked {left} of {len(scored)} rows for wrong answers"
  assert said in (folder / "log.txt").read_text()

  wanted = small_run.read_bytes(folder)
  run_at(**settings)
  assert small_run.read_bytes(folder) == wanted
  # Cut off between the halves, it goes on with the second alone.
  for name in ("rounds/fold-2", "doubts", "arms"):
    shutil.rmtree(folder / name)
  place = len((folder / "log.txt").read_text())
  tune_half = heldout_models._tune_half

  def stop_once(run, *rest):
    monkeypatch.setattr(heldout_models, "_tune_half", tune_half)
    raise Stopped("before fold-1")

  monkeypatch.setattr(heldout_models, "_tune_half", stop_once)
  with pytest.raises(Stopped):
    run_at(**settings)
  run_at(**settings)
  assert small_run.read_bytes(folder) == wanted
  told = (folder / "log.txt").read_text()[place:]
  assert "rounds/fold-1/seed is unchanged" in told
  assert "making rounds/fold-1" not in told


def test_a_probe_costs_no_pass_and_leaves_rows_of_several_turns_alone(run_at):
  _, folder = run_at(**{"select.bound": "probe", "select.groups": "source"})
  found = read(folder / "doubts/probe/doubts.parquet")
  pool = read(folder / "pool.parquet")
  turns = [pool["turns"][row] for row in found["row"]]
  assert [turn == 1 for turn in turns] == np.isfinite(found["loss"]).tolist()
  assert 1 < max(turns) and not (folder / "rounds").exists()
  summary = json.loads((folder / "arms/main/selection/summary.json").read_text())
  several = sum(turn > 1 for turn in turns)
  unknown = summary["bound"]["spared"]["rows of which nothing is known"]
  assert unknown["rows"] == several
  wanted = small_run.read_bytes(folder)
  shutil.rmtree(folder / "doubts")
  run_at(**{"select.bound": "probe", "select.groups": "source"})
  assert small_run.read_bytes(folder) == wanted


def test_suspects_of_a_held_out_loss_are_left_out_and_explained(run_at, monkeypatch):
  _, folder = run_at(**{"select.bound": "probe", "select.groups": "source"})
  made = read(folder / "doubts/probe/doubts.parquet")
  worst = made["row"][int(np.nanargmax(made["loss"]))]

  def one(found, groups, answers):
    return heldout_loss.Suspects(found.loss == np.nanmax(found.loss), {})

  monkeypatch.setattr("mllm_selector_jax.selection.bounds.probe.find_doubted", one)
  settings = {"select.bound": "probe", "select.groups": "source"}
  settings["select.budget"] = "50%"
  _, folder = run_at(**settings)
  selection = read(folder / "arms/main/selection/selection.parquet")
  reason = "suspect: unlikely to a model that has not seen it"
  assert selection["reason"][worst] == reason and not selection["kept"][worst]
  name = selection["id"][worst]
  text = run_at(lambda run: explain_rows(run, (name,)), **settings)[0][0]
  assert reason in text and "without select.bound:" in text


@pytest.mark.parametrize(
  ("given", "read_as"), [("0.3", 0.3), (0.3, 0.3), ("none", "none"), ("gate", "gate")]
)
def test_a_bound_is_a_number_or_a_name(run_at, given, read_as):
  call = lambda run: candidates.make_config(run)["bound"]  # noqa: E731
  assert run_at(call, **{"select.bound": given})[0] == read_as


def test_what_is_not_made_yet_is_asked_for(run_at):
  def explain(run):
    return candidates.read_eligible(run, candidates.make_config(run), 0)

  with pytest.raises(InputError, match="doubts/probe is not there"):
    run_at(explain, **{"select.bound": "probe", "select.groups": "source"})
  with pytest.raises(
    InputError, match="allowed: none, quantile, gate, tail_safe, mixture, probe"
  ):
    run_at(**{"select.bound": "best"})
