"""Exports: one format leaves the others, and what is older than its arm is named."""

import json

import pytest

from mllm_selector_jax import main
from mllm_selector_jax.data.files import id_list
from mllm_selector_jax.pipeline.exports import list_stale
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.models import tiny

SETTINGS = {"select.groups": "source", "select.bound": "none"}


@pytest.fixture
def give(select, base):
  """Runs a stage on a copy of the scored workdir; gives what it said."""

  def call(stage, arm=None, **settings):
    _, folder = select(lambda run: None)
    log = folder / "log.txt"
    before = len(log.read_text())
    settings = {"score.model": str(base), **SETTINGS, **settings}
    with small_run.open_run(folder, base, **settings) as current:
      current.arm = arm
      stage(current)
    return log.read_text()[before:], folder

  return call


def export(give, formats, **rest):
  return give(
    COMMANDS["export-selection"], **{"export_selection.formats": formats, **rest}
  )


def read_ids(folder, arm):
  path = folder / f"arms/{arm}/exports/ids/ids.txt"
  return [line.id for line in id_list.read_lines(path)]


def read_kept(folder, arm):
  path = folder / f"arms/{arm}/selection/selected.json"
  return [record["id"] for record in json.loads(path.read_text())]


def test_each_format_is_an_artifact_of_its_own(give):
  _, folder = give(COMMANDS["select"])
  export(give, "llava,ids")
  out = folder / "arms/main/exports"
  kept = small_run.read_bytes(out)
  assert set(kept) == {
    "llava/selected.json",
    "ids/ids.txt",
    "llava.provenance.json",
    "ids.provenance.json",
  }
  made = json.loads(kept["llava.provenance.json"])
  selection = folder / "arms/main/selection/provenance.json"
  assert made["inputs"]["selection"] == json.loads(selection.read_text())["digest"]
  assert made["config"]["format"] == "llava" and made["stage"] == "export-selection"
  told, _ = export(give, "weights,ids")
  assert "making arms/kl-25%-seed0/exports/weights" in told
  assert (
    "arms/kl-25%-seed0/exports/ids is unchanged, kept" in told and "Warning" not in told
  )
  found = small_run.read_bytes(out)
  assert {name: found[name] for name in kept} == kept
  assert set(found) - set(kept) == {
    "weights/weights.parquet",
    "weights.provenance.json",
  }


def test_exports_of_another_arm_are_no_older(give):
  _, folder = give(COMMANDS["select"])
  export(give, "ids")
  first, arm = read_ids(folder, "main"), (folder / "arms/main").readlink()
  told, _ = give(COMMANDS["select"], **{"select.budget": "10%"})
  assert "main is now arms/kl-10%-seed0" in told and "Warning" not in told
  export(give, "ids", **{"select.budget": "10%"})
  assert read_ids(folder, arm) == first
  assert len(read_ids(folder, "main")) < len(first)
  made = json.loads((folder / "arms/main/exports/ids.provenance.json").read_text())
  assert made["config"]["arm"] == "kl-10%-seed0"


def test_exports_older_than_the_selection_are_named(give, tmp_path):
  control = {"select.control": True}
  _, folder = give(COMMANDS["select"], **control)
  export(give, "llava,ids")
  export(give, "ids", arm="random")
  told, _ = give(COMMANDS["select"], **control)
  assert "Warning" not in told
  other = {"score.model": str(tiny.make_base(tmp_path / "other", seed=1))}
  give(COMMANDS["score"], **other)
  told, _ = give(COMMANDS["select"], **control, **other)
  assert "making arms/kl-25%-seed0/selection again: scores changed" in told
  out = folder / "arms/kl-25%-seed0/exports"
  assert f"Warning: llava, ids in {out} were made from an older selection" in told
  assert "export-selection --config.export_selection.formats=llava,ids`" in told
  assert "export-selection --arm=random-25%-seed0 --config" in told
  told, _ = export(give, "ids")
  assert "exports/ids again: selection changed" in told
  assert f"Warning: llava in {out} was made from an older selection" in told
  assert read_ids(folder, "main") == read_kept(folder, "main")
  told, _ = export(give, "llava")
  assert "Warning" not in told


def test_exports_of_an_earlier_version_are_named(give, base):
  _, folder = give(COMMANDS["select"])
  out = folder / "arms/main/exports"
  (out / "llava").mkdir(parents=True)
  (out / "provenance.json").write_text("{}")
  with small_run.open_run(folder, base) as current:
    assert list_stale(current.workdir, "main") == ["llava"]
  told, _ = export(give, "llava")
  assert "Warning" not in told and not (out / "provenance.json").exists()


def test_an_arm_is_named_by_flag_or_config(give, base):
  control = {"select.control": True}
  _, folder = give(COMMANDS["select"], **control)
  export(give, "ids", arm="random")
  assert not (folder / "arms/main/exports").exists()
  assert read_ids(folder, "random") == read_kept(folder, "random")
  export(give, "llava", **{"export_selection.arm": "random"})
  assert (folder / "arms/random/exports/llava/selected.json").exists()
  for arm in ("main", "other"):
    with pytest.raises(InputError, match=f"--arm={arm} and .*'random' name two arms"):
      export(give, "ids", arm=arm, **{"export_selection.arm": "random"})
  with pytest.raises(InputError, match=r"no such arm; there are main .*, random"):
    export(give, "ids", arm="other")


def test_the_command_line_takes_the_arm_where_it_is_read(give, base, capfd):
  _, folder = give(COMMANDS["select"], **{"select.control": True})
  given = ["x", "export-selection", "--config=demo", f"--workdir={folder}"]
  given += [f"--config.model.path={base}", "--config.pool.demo.rows=120"]
  given += ["--config.export_selection.formats=ids", "--arm=random"]
  assert main.run(given) == 0, capfd.readouterr().err
  assert read_ids(folder, "random") == read_kept(folder, "random")
  given[1] = "select"
  assert main.run(given) == 2
  said = capfd.readouterr().err
  assert "--arm is read by tune, evaluate, explain, clean and export-selection" in said
  assert "and not by select" in said
