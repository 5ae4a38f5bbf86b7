"""Whole commands with plug-ins of every kind, from the command line."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from mllm_selector_jax import main
from mllm_selector_jax.comparison.comparison_plan import read_plan
from mllm_selector_jax.settings import check_settings
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import example_plugin, small_run
from tests.data.pools_on_the_spot import make_record, write_images
from tests.stages.conftest import SIGNALS

STRATEGY = "example_plugin.strategy:LONGEST"
BOUND = "example_plugin.bound:ERROR_NORM"
METRIC = "example_plugin.metric:first_word"
MARGIN, SURPRISE = "example_plugin.signal:margin", "example_plugin.signal:SURPRISE"
FORMAT = "example_plugin.pool_format:TabFile"
REASON = "suspect: the seed model expects another answer"


@pytest.fixture
def plugin(monkeypatch, tmp_path):
  """A copy of the example's modules, on the path, that a test may change."""
  folder = tmp_path / "plugin"
  shutil.copytree(example_plugin.FOLDER, folder)
  example_plugin.add(monkeypatch, folder)
  return folder / "example_plugin"


@pytest.fixture
def command(base, scored, tmp_path, capsys):
  """The command line on a copy of the scored workdir: status, what it says, folder."""
  folder = tmp_path / "work"
  shutil.copytree(scored, folder, symlinks=True)

  def call(name, *flags, **settings):
    settings = {
      "model.path": base,
      "score.model": base,
      "score.signals": SIGNALS,
      "pool.demo.rows": 120,
      "pool.demo.questions": 2,
      "select.budget": "25%",
      "select.control": False,
      "score.part_rows": 32,
      "score.batch_rows": 8,
      **{key.replace("__", "."): value for key, value in settings.items()},
    }
    given = [f"--config.{key}={value}" for key, value in settings.items()]
    argv = ["mllm-selector", name, "--config=demo", f"--workdir={folder}", *given]
    status = main.run([*argv, *flags])
    return status, capsys.readouterr().err, folder

  return call


def read_selection(folder):
  return pq.read_table(folder / "arms/main/selection/selection.parquet").to_pydict()


def test_a_strategy_is_selected_by_from_the_command_line(command, plugin, monkeypatch):
  settings = {"select.strategy": STRATEGY, "select.groups": "source"}
  status, said, folder = command("select", **settings)
  assert status == 0, said
  assert f"eligible rows ({STRATEGY}, budget 25%)" in said
  made = json.loads((folder / "arms/main/selection/provenance.json").read_text())
  assert made["config"]["strategy"] == STRATEGY
  assert f"strategy {STRATEGY}" in made["inputs"]
  kept = read_selection(folder)["kept"]
  tokens = pq.read_table(folder / "pool.parquet")["tokens"].to_numpy()
  suspect = np.char.startswith(np.array(read_selection(folder)["reason"]), "suspect")
  free = [t for t, s, g in zip(tokens, suspect, kept, strict=True) if not s or g]
  assert min(tokens[np.array(kept)]) >= sorted(free)[-sum(kept)]

  _, said, _ = command("select", **settings)
  assert "/selection is unchanged, kept" in said
  # A plug-in that changed is another one.
  path = plugin / "strategy.py"
  path.write_text(path.read_text().replace("astype(np.float64)", "astype(float) * -1"))
  example_plugin.add(monkeypatch, plugin.parent)
  status, said, _ = command("select", **settings)
  assert status == 0
  assert f"again: strategy {STRATEGY} changed" in said
  assert read_selection(folder)["kept"] != kept


def test_a_bound_is_told_of_everywhere(command, plugin, capsys):
  settings = {"select.bound": BOUND, "select.groups": "source"}
  status, said, folder = command("select", **settings)
  assert status == 0, said
  table = read_selection(folder)
  assert REASON in table["reason"]
  summary = json.loads((folder / "arms/main/selection/summary.json").read_text())
  assert summary["meanings"] == {
    REASON: "its error norm is among its group's largest",
  }
  made = json.loads((folder / "arms/main/selection/provenance.json").read_text())
  assert f"bound {BOUND}" in made["inputs"]
  row = table["reason"].index(REASON)
  status, said, _ = command("explain", f"--id=row={row}", **settings)
  assert status == 0, said
  assert f"not kept: {REASON} (its error norm is among its group's largest)" in said
  assert "without select.bound:" in said
  # Without the config's word the name in the workdir is not imported.
  status, said, _ = command("explain", f"--id=row={row}")
  assert status == 2 and f"'{BOUND}': this plug-in is not named by the config" in said
  # Nor is that in a card, which may be anybody's.
  formats = {"export_selection.formats": "card"}
  assert command("export-selection", **settings, **formats)[0] == 0
  card = folder / "arms/main/exports/card"
  assert main.run(["mllm-selector", "verify", f"--card={card}"]) == 2
  assert f"'{BOUND}': this plug-in is not named" in capsys.readouterr().err
  assert command("report")[0] == 0  # which needs no plug-in
  page = (folder / "report.html").read_text()
  assert REASON in page and "error norm is among its group" in page


def test_a_comparison_has_arms_of_plug_ins(base, plugin, tmp_path):
  settings = {
    "compare.strategies": f"kl,{STRATEGY}",
    "compare.variants": f"mine: bound={BOUND}, floor=0",
    "compare.budgets": "5%",
    "compare.seeds": "3",
  }
  with small_run.open_run(tmp_path / "work", base, **settings) as current:
    plan = read_plan(current.cfg)
    assert plan.variants["mine"]["bound"] == BOUND
    assert [arm.name(3) for arm in plan.arms][-2:] == [
      "example_plugin.strategy.LONGEST-5%-3",
      "mine-5%-3",
    ]
    assert check_settings(current, "select") is None
  with pytest.raises(InputError, match="not named by the config of this run"):
    read_plan(small_run.make_config(base, **settings))


def test_a_signal_that_the_scores_lack_is_asked_for(command, plugin):
  settings = {"select.signal": MARGIN, "select.groups": "source"}
  status, said, _ = command("select", **settings)
  assert status == 2 and f"needs the signal '{MARGIN}', which was not scored" in said
  status, said, _ = command("select", **{"select.bound": "example_plugin.bound:none"})
  assert status == 2 and "has no 'none'; it has" in said


def test_signals_are_columns_of_the_scores(command, plugin, monkeypatch):
  names = ("loss", "entropy", "accuracy", MARGIN, SURPRISE)
  settings = {"score.signals": names, "select.groups": "source"}
  status, said, folder = command("score", **settings)
  assert status == 0, said
  parts = sorted((folder / "scores").glob("part-*.parquet"))
  table = {
    name: np.concatenate([pq.read_table(part)[name].to_numpy() for part in parts])
    for name in names
  }
  expected = table["loss"] - table["entropy"]
  np.testing.assert_allclose(table[SURPRISE], expected, rtol=1e-12)
  # The best token's loss is the margin's distance from the target's, and never above.
  assert (table[MARGIN] >= 0).all() and (table[MARGIN] <= table["loss"]).all()
  assert (table[MARGIN][table["accuracy"] == 1] == 0).all()
  status, said, _ = command("select", **settings, **{"select.signal": MARGIN})
  assert status == 0, said
  path = plugin / "signal.py"
  path.write_text(path.read_text() + "\nVERSION = 2\n")
  _, said, _ = command("score", **settings)
  assert f"again: signal {SURPRISE} changed; signal {MARGIN} changed" in said


def test_a_question_file_names_a_metric_that_the_config_names(
  base, scored, plugin, tmp_path
):
  folder = tmp_path / "work"
  shutil.copytree(scored, folder, symlinks=True)
  asked = {"id": 1, "question": "What is it?", "answers": ["a dog"], "metric": METRIC}
  (tmp_path / "q.jsonl").write_text(json.dumps(asked) + "\n")
  settings = {
    "score.model": str(base),
    "score.signals": SIGNALS,
    "select.control": False,
    "evaluate.tasks": str(tmp_path / "q.jsonl"),
  }
  with small_run.open_run(folder, base, **settings) as current:
    COMMANDS["select"](current)
    COMMANDS["tune"](current)
    with pytest.raises(InputError, match=f"metric is '{METRIC}': .* not named"):
      COMMANDS["evaluate"](current)
  settings["evaluate.metrics"] = METRIC
  with small_run.open_run(folder, base, **settings) as current:
    COMMANDS["evaluate"](current)
  place = folder / "arms/main/evaluation"
  found = json.loads((place / "results.json").read_text())
  assert found["tasks"]["q"]["metric"] == METRIC
  made = json.loads((place / "provenance.json").read_text())
  assert f"metric {METRIC}" in made["inputs"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pool_of_another_format_is_the_same_pool(base, plugin, tmp_path, workers):
  write_images(tmp_path / "images", *(f"a/{n}.png" for n in range(3)))
  records = [make_record(n, f"a/{n % 3}.png") for n in range(9)]
  (tmp_path / "pool.json").write_text(json.dumps(records))
  lines = [
    (
      record["id"],
      record["image"],
      *(turn["value"] for turn in record["conversations"]),
    )
    for record in records
  ]
  folder = tmp_path / "pool"
  folder.mkdir()
  text = "".join(
    "\t".join([i, image, q.removeprefix("<image>\n"), a]) + "\n"
    for i, image, q, a in lines
  )
  (folder / "rows.tsv").write_text(text + "only\ttwo\n")

  def check(data, name, *commands, **more):
    settings = {"pool.demo.rows": 0, "pool.images": str(tmp_path / "images")}
    settings |= {"pool.data": str(data), "pool.most_aside": 1.0}
    settings |= {"prepare.workers": workers, "prepare.shard_rows": 4, **more}
    with small_run.open_run(tmp_path / name, base, **settings) as current:
      for each in ("check", *commands):
        COMMANDS[each](current)
    return pq.read_table(tmp_path / name / "pool.parquet")

  plain = check(tmp_path / "pool.json", "plain")
  with pytest.raises(InputError, match=r"a folder without \.parquet"):
    check(folder, "refused")
  found = check(folder, "plugged", "prepare", **{"pool.formats": FORMAT})
  assert found["reason"].to_pylist() == [None] * 9 + ["malformed"]
  for column in ("tokens", "hash", "id", "images"):
    assert found[column].to_pylist()[:9] == plain[column].to_pylist(), column
  made = json.loads((tmp_path / "plugged/pool.provenance.json").read_text())
  assert f"format {FORMAT}" in made["inputs"]
  prepared = check(tmp_path / "plugged/prepared", "prepared")
  assert prepared["hash"].to_pylist()[:9] == plain["hash"].to_pylist()
