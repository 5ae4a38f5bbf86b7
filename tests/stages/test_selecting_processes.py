"""Two real processes select what one selects, byte for byte."""

import shutil

import pytest

from tests import small_run
from tests.models import tiny
from tests.real_processes import Forked, fork_many, write_config

SETTINGS = {
  "kl": {"strategy": "kl", "most": "image=1"},
  "cover": {"strategy": "kl", "within": "cover"},
  "facility_location": {"strategy": "facility_location"},
  "k_center": {"strategy": "k_center"},
}


@pytest.mark.slow
def test_two_processes_select_the_rows_of_one(tmp_path):
  base = tiny.make_base(tmp_path / "base")
  settings = {"score.model": str(base), "select.control": False}
  settings["select.budget"] = "30"
  config = write_config(tmp_path / "config.py", base, **settings)
  one, two = tmp_path / "one", tmp_path / "two"
  for command in ("check", "score"):
    status, said = Forked(one, config, command).end(120)
    assert status == 0, said
  shutil.copytree(one, two, symlinks=True)
  for name, options in SETTINGS.items():
    given = [f"--config.select.{key}={value}" for key, value in options.items()]
    status, said = Forked(one, config, "select", *given).end(120)
    assert status == 0, said
    ended = [each.end(120) for each in fork_many(2, two, config, "select", *given)]
    assert [status for status, _ in ended] == [0, 0], ended
    wanted = small_run.read_bytes((one / "arms/main").resolve() / "selection")
    found = small_run.read_bytes((two / "arms/main").resolve() / "selection")
    assert {"selection.parquet", "selected.json"} <= {*map(str, wanted)}, name
    assert found == wanted, name
  # Each setting has an arm of its own beside the link.
  assert len([path for path in (two / "arms").iterdir() if path.is_dir()]) == 5
