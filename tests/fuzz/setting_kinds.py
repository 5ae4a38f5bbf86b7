"""Values of every key of the config, command lines, and config files."""

import json
from pathlib import Path
from unittest import mock

from mllm_selector_jax.configs import default, demo

from mllm_selector_jax import command_line
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.planning import pool_figures
from mllm_selector_jax.runs.console import Console
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.settings.keys import KEYS, check_keys
from mllm_selector_jax.types import InputError
from tests.fuzz import pool_kinds
from tests.fuzz.kinds import TAKEN, Kind, write_json

LINES = (
  ["check", "--config=demo", "--workdir=w", "--config.pool.data=a.json,b.json"],
  ["select", "--config=demo", "--workdir=w", "--config.select.budget=5%", "--force"],
  ["tune", "--config=demo", "--workdir=w", "--arm=main", "--config.tune.epochs=2"],
  ["measure", "--config=demo", "--workdir=w", "--ids=a.txt,b.txt", "--out=o"],
  ["plan", "--config=demo", "--workdir=w", "--config.mesh.fsdp=2", "--num_devices=8"],
  ["compare", "--config=demo", "--config.compare.seeds=(1, 2)", "--workdir=gs://a/b"],
)
CONFIG = """\
from mllm_selector_jax.configs import demo


def get_config():
  cfg = demo.get_config()
  cfg.select.budget = "5%"
  cfg.tune.epochs = 2
  cfg.score.signals = ("loss", "entropy")
  return cfg
"""


def _flatten(cfg) -> dict:
  values = {}
  for key in KEYS:
    value = cfg
    for part in key.split("."):
      value = value[part]
    values[key] = value.to_dict() if hasattr(value, "to_dict") else value
  return values


def write_values(folder: Path, number: int) -> None:
  cfg = (default, demo)[number].get_config()
  write_json(folder / "values.json", _flatten(cfg))


def read_values(folder: Path) -> str:
  try:
    values = json.loads((folder / "values.json").read_bytes())
  except (ValueError, RecursionError) as error:
    raise InputError("not JSON") from error
  if "[" * 50 in str(values):
    raise InputError("no value that a config or command line can hold")
  cfg = default.get_config().to_dict()
  for key, value in values.items() if isinstance(values, dict) else ():
    *parents, name = key.split(".")
    section = cfg
    for part in parents:
      section = section.get(part, {}) if isinstance(section, dict) else {}
    if isinstance(section, dict) and name in section:
      section[name] = value
  check_keys(cfg)
  return TAKEN


def write_line(folder: Path, number: int) -> None:
  write_json(folder / "line.json", LINES[number])


def read_line(folder: Path) -> str:
  try:
    line = json.loads((folder / "line.json").read_bytes())
  except (ValueError, RecursionError) as error:
    raise InputError("not JSON") from error
  if not isinstance(line, list) or not all(isinstance(word, str) for word in line):
    raise InputError("no command line")
  if any("\0" in word or not word.isprintable() for word in line):
    raise InputError("no command line of a shell")
  # absl reads arguments from such files, as users may want.
  line = [word for word in line if "flagfile" not in word]
  call = command_line.parse(["mllm-selector", *line])
  check_keys(call.cfg)
  return TAKEN


def write_file(folder: Path, number: int) -> None:
  (folder / "config.py").write_text(CONFIG)


def read_file(folder: Path) -> str:
  text = (folder / "config.py").read_bytes().decode("utf-8", "replace")
  # A config file is the user's own program, and may do whatever Python can.
  if any(word in text for word in ("for", "while", "**", "999999999")):
    raise InputError("left out")
  path = folder / "read.py"
  path.write_text(text, "utf-8", "replace")
  try:
    line = ["mllm-selector", "check", f"--config={path}", "--workdir=w"]
    check_keys(command_line.parse(line).cfg)
  finally:
    path.unlink()
  return TAKEN


def write_summary(folder: Path, number: int) -> None:
  pool_kinds.write_whole_pool(folder, number)
  pool = pool_kinds.WholePools()
  write_json(folder / "pool_summary.json", pool.check(folder)[0])


def read_summary(folder: Path) -> str:
  cfg = demo.get_config()
  cfg.plan.summary = str(folder / "pool_summary.json")
  run = Run(cfg, Workdir(folder), Console(folder / "log.txt"))
  with mock.patch.object(base_model, "read_encoder", _read_demo_encoder):
    pool_figures.find_pool(run)
  return TAKEN


_READ = base_model.read_encoder


_DEMO: list = []


def _read_demo_encoder(run: Run):
  """The encoder of the demo's base, read once a process."""
  if not _DEMO:
    _DEMO.append(_READ(run))
  return _DEMO[0]


def list_kinds() -> list[Kind]:
  return [
    Kind("setting values", write_values, read_values, 2, share=6),
    Kind("command line", write_line, read_line, len(LINES), share=2),
    Kind("config file", write_file, read_file, share=1, keep=()),
    Kind("pool summary", write_summary, read_summary, 4, 2, ("pool.json", ".png")),
  ]
