"""The config that --print_config prints."""

from mllm_selector_jax import main

CONFIG = """
from mllm_selector_jax.configs import default

def get_config():
  cfg = default.get_config()
  cfg.tune.epochs = 3
  cfg.report.title = "Mine"
  cfg.select.control = False
  return cfg
"""


def show(capsys, *arguments, status=0):
  assert main.run(["mllm-selector", *arguments, "--print_config"]) == status
  return capsys.readouterr()


def test_what_differs_is_marked_with_its_origin(tmp_path, capsys):
  file = tmp_path / "mine.py"
  file.write_text(CONFIG)
  overrides = ["--config.tune.epochs=4", "--config.select.budget", "5%"]
  overrides += ["--config.rng_seed=0", "--config.select.control=True"]
  for config in ([f"--config={file}"], ["--config", str(file)]):
    lines = show(capsys, "tune", *config, *overrides).out.splitlines()
    assert [line for line in lines if line.startswith("*")] == [
      "* select.budget = '5%'  # --config.select.budget",
      "* tune.epochs = 4  # --config.tune.epochs",
      "* report.title = 'Mine'  # --config=mine.py",
    ]
    assert lines[0] == "  rng_seed = 0" and "  seed.epochs = 1" in lines


def test_the_default_has_no_marks(capsys):
  assert "*" not in show(capsys, "--config=default").out


def test_a_config_file_that_sets_a_replaced_key_is_refused_by_the_new_one(
  tmp_path, capsys
):
  file = tmp_path / "mine.py"
  file.write_text(CONFIG.replace("tune.epochs = 3", "log.tensorboard = True"))
  said = show(capsys, f"--config={file}", status=2)
  assert "log.tensorboard was replaced" in said.err
  assert "--config.log.trackers=tensorboard" in said.err


def test_what_is_wrong_is_one_message(capsys):
  said = show(capsys, "--config=default", "--config.tune.epoch=4", status=2)
  assert said.out == "" and "Did you mean --config.tune.epochs" in said.err
