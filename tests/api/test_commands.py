"""The commands as functions: the same artifacts as the command line's."""

import json

import pytest

import mllm_selector_jax as ms
from mllm_selector_jax import main
from tests import small_run

SMALL = {
  "pool.demo.rows": 60,
  "pool.demo.questions": 2,
  "seed.rows": "16",
  "seed.batch": 8,
  "seed.epochs": 1,
  "score.part_rows": 32,
  "score.batch_rows": 8,
}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
  folder = tmp_path_factory.mktemp("api") / "work"
  return folder, ms.score("demo", folder, SMALL)


def test_a_pool_is_scored_from_nothing(scored):
  folder, table = scored
  summary = json.loads((folder / "pool_summary.json").read_text())
  assert table.num_rows == summary["ok"] and summary["rows"] >= 60
  assert {"row", "id", "hash", "loss", "accuracy"} <= set(table.column_names)


def test_what_was_scored_can_be_selected_in_memory(scored):
  _, table = scored
  chosen = ms.select(table["loss"], accuracies=table["accuracy"], ids=table["hash"])
  assert len(chosen) == int(0.05 * table.num_rows + 0.5)


def test_the_command_line_finds_all_of_it_done(scored, capsys):
  folder, _ = scored
  before = small_run.read_bytes(folder)
  flags = [f"--config.{key}={value}" for key, value in SMALL.items()]
  assert main.run(["x", "score", "--config=demo", f"--workdir={folder}", *flags]) == 0
  assert "scores is unchanged, kept" in capsys.readouterr().err
  assert small_run.read_bytes(folder) == before


def test_a_pool_of_ones_own_is_checked(scored, tmp_path):
  drawn = scored[0] / "demo_pool"
  found = ms.check(drawn / "pool.json", drawn / "images", workdir=tmp_path / "work")
  assert found["rows"] == 60 and (tmp_path / "work/pool.parquet").is_file()


def test_a_config_of_ones_own_is_a_file(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
    "from mllm_selector_jax.configs import demo\n"
    "def get_config():\n"
    "  cfg = demo.get_config()\n"
    "  cfg.rng_seed = 5\n"
    "  return cfg\n"
  )
  assert ms.load_config(path, {"tune.batch": 4}).rng_seed == 5
  assert ms.load_config("demo").rng_seed == ms.load_config("demo.py").rng_seed


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda path: ms.load_config("demmo"), "no config 'demmo'; shipped are"),
    (lambda path: ms.load_config("demo", {"tune.bach": 4}), "bach"),
    (lambda path: ms.load_config("demo", {"tune.batch": "x"}), "settings"),
    (lambda path: ms.run("demo", path, "chek"), "'chek' is not a command"),
    (lambda path: ms.run("demo", path, "check", {"pool.source": "x"}), "pool.source"),
    (lambda path: ms.check(path / "none.json", workdir=path / "w"), "none.json"),
  ],
)
def test_wrong_input_is_one_message(tmp_path, call, message):
  with pytest.raises(ms.InputError, match=message):
    call(tmp_path)
