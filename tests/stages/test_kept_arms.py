"""Arms that are kept: runs with other settings, and back, on one small workdir."""

import json
import shutil

import pytest

from mllm_selector_jax import main
from mllm_selector_jax.pipeline import kept_arms
from mllm_selector_jax.runs import arm_pointers
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.types import InputError
from tests import small_run

A, B = "kl-25%-seed0", "kl-10%-seed0"
FASTER = f"{A}-learning_rate=0.002"
STAGES = ("select", "tune", "evaluate")


@pytest.fixture(scope="module")
def call(base, scored, tmp_path_factory):
  """Runs stages in one workdir, or a copy; gives the folder and what was said."""
  folder = tmp_path_factory.mktemp("kept") / "work"
  shutil.copytree(scored, folder)

  def run(*stages, work=folder, arm=None, **settings):
    log = work / "log.txt"
    before = len(log.read_text())
    settings = {
      "score.model": str(base),
      "select.control": False,
      "select.groups": "source",
      "select.bound": "none",
      "tune.trainable": "projector",
      **settings,
    }
    with small_run.open_run(work, base, **settings) as current:
      current.arm = arm
      for stage in stages:
        COMMANDS[stage](current)
    return work, log.read_text()[before:]

  return run


@pytest.fixture(scope="module")
def there_and_back(call):
  """What the runs with A, B and A again said, and the files of A after each of them."""
  said, files = [], []
  for budget in ("25%", "10%", "25%"):
    folder, text = call(*STAGES, **{"select.budget": budget})
    said.append(text)
    files.append(small_run.read_bytes(folder / "arms" / A))
  return folder, said, files


@pytest.fixture
def copy(there_and_back, tmp_path):
  folder = tmp_path / "copy"
  shutil.copytree(there_and_back[0], folder, symlinks=True)
  return folder


def test_another_budget_makes_another_arm_and_the_old_one_is_used_again(there_and_back):
  folder, said, files = there_and_back
  assert files[0] == files[1] == files[2]
  assert {"selection", "tuned", "evaluation"} == {n.split("/")[0] for n in files[0]}
  assert f"main is now arms/{B}; arms/{A} stays" in said[1]
  assert all(f"making arms/{B}/{part}" in said[1] for part in ("selection", "tuned"))
  assert "making" not in said[2] and f"main is now arms/{A}" in said[2]
  for part in ("selection", "tuned", "evaluation"):
    assert f"arms/{A}/{part} is unchanged, kept" in said[2]
  assert json.loads((folder / "arms/main.json").read_text()) == {"arm": A}
  assert (folder / "arms/main/selection").samefile(folder / "arms" / A / "selection")


def test_another_model_of_the_same_rows_is_another_arm(call, copy):
  faster = {"tune.learning_rate": 2e-3}
  before = small_run.read_bytes(copy / "arms" / A)
  _, said = call("select", "tune", work=copy, **faster)
  assert f"arms/{A} has a model made with other settings (learning_rate" in said
  assert small_run.read_bytes(copy / "arms" / A) == before
  assert Workdir(copy).resolve("main") == FASTER
  kept = "selection/selected.json"
  assert (copy / "arms" / FASTER / kept).read_bytes() == before[kept]
  # Both are found again, whether `select` or `tune` sees the settings first.
  for stages in (("select", "tune"), ("tune",)):
    _, said = call(*stages, work=copy)
    assert "making" not in said and Workdir(copy).resolve("main") == A
    _, said = call(*stages, work=copy, **faster)
    assert "making" not in said and Workdir(copy).resolve("main") == FASTER


def test_an_evaluation_with_other_questions_is_found_again(call, copy):
  folder = copy / "arms" / A
  before = small_run.read_bytes(folder / "evaluation")
  _, said = call("evaluate", work=copy, **{"evaluate.limit": 1})
  assert "made with other settings (limit 0 -> 1)" in said
  (kept,) = folder.glob("evaluation-*")
  assert small_run.read_bytes(kept) == before
  assert small_run.read_bytes(folder / "evaluation") != before
  _, said = call("evaluate", work=copy)
  assert "making arms" not in said and f"is again {kept.name}" in said
  assert small_run.read_bytes(folder / "evaluation") == before
  assert not kept.exists() and len(list(folder.glob("evaluation-*"))) == 1


def test_the_same_rows_are_not_tuned_again(call, copy, monkeypatch):
  monkeypatch.setattr(kept_arms, "_LARGE", 10_000)
  _, said = call(*STAGES, work=copy, **{"select.temperature": 0.3})  # is not read
  name = f"{A}-temperature=0.3"
  assert Workdir(copy).resolve("main") == name
  assert f"arms/{name} has the rows of arms/{A}, whose model is used" in said
  models = [copy / "arms" / arm / "tuned" for arm in (A, name)]
  first, second = map(small_run.read_bytes, models)
  assert first == second
  weights, config = "hf/model.safetensors", "hf/config.json"
  assert models[0].joinpath(weights).samefile(models[1] / weights)
  assert not models[0].joinpath(config).samefile(models[1] / config)


def test_other_scores_leave_a_tuned_arm_alone(call, copy):
  before = small_run.read_bytes(copy / "arms" / A)
  call("score", "select", work=copy, **{"score.signals": "loss"})
  assert Workdir(copy).resolve("main") == f"{A}-2"
  assert small_run.read_bytes(copy / "arms" / A) == before
  # Without a model nothing is lost, and the selection is replaced.
  _, said = call("score", "select", work=copy, **{"score.signals": "loss,el2n"})
  assert f"making arms/{A}-2/selection again: scores changed" in said


def test_the_arms_of_a_sweep_are_tuned_and_exported(call, copy):
  sweep = {"select.sweep.budgets": "10%,5%", "select.sweep.kl_weights": "0.5"}
  _, said = call("select", work=copy, **sweep)
  assert Workdir(copy).resolve("main") == A
  name = "kl-5%-seed0-kl_weight=0.5"
  assert f"is the arm {name}" in said
  _, said = call("tune", "export-selection", work=copy, arm=name)
  for part in ("tuned", "exports/llava"):
    assert f"making arms/{name}/{part}" in said and f"arms/{A}/{part}" not in said
  assert Workdir(copy).resolve("main") == A
  _, said = call("select", work=copy, **sweep)
  assert "making" not in said


def test_the_list_says_what_each_arm_is(call, copy):
  (copy / "arms" / B / "tuned" / "provenance.json").unlink()
  call("export-selection", work=copy)
  marker = copy / "arms" / A / "exports" / "llava.provenance.json"
  made = json.loads(marker.read_text())
  made["inputs"]["selection"] = "another"
  marker.write_text(json.dumps(made))
  _, said = call("arms", work=copy)
  head, first, second, total = (line[20:] for line in said.splitlines())
  score = json.loads((copy / "arms" / A / "evaluation/results.json").read_text())
  assert head.split() == "arm is rows size stages score age exports".split()
  assert first.startswith(f"{A}  main") and "selected, tuned, evaluated" in first
  assert f"{score['macro']['value']:.3f} [" in first and "28" in first.split()
  assert first.endswith("verbatim, llava (stale)")
  assert second.split()[:2] == [B, "-"] and "selected, evaluated" in second
  assert total.startswith("2 arms, ") and total.endswith(" KB")


def test_clean_removes_what_is_named(call, copy):
  with pytest.raises(InputError, match=rf"main names arms/{A}. Give --arm=main"):
    call("clean", work=copy, arm=f"{B},{A}")
  for name in ("other", "../arms", "", None):
    with pytest.raises(InputError, match=f"there are main .which is {A}., {B}"):
      call("clean", work=copy, arm=name)
  assert (copy / "arms" / B / "tuned").is_dir()
  _, said = call("clean", work=copy, arm=B)
  assert f"arms/{B} is removed (" in said and not (copy / "arms" / B).exists()
  _, said = call("clean", work=copy, arm="main")
  assert "main names no arm now" in said and not any((copy / "arms").iterdir())
  with pytest.raises(InputError, match="run `mllm-selector select`"):
    call("export-selection", work=copy)


@pytest.mark.parametrize("stop", ["rename", "rmtree"])
def test_a_clean_that_is_killed_leaves_no_half_of_an_arm(call, copy, monkeypatch, stop):
  def die(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    place = "pathlib.Path.rename" if stop == "rename" else "shutil.rmtree"
    patch.setattr(place, die)
    with pytest.raises(KeyboardInterrupt):
      call("clean", work=copy, arm="main")
  left = arm_pointers.list_arms(copy / "arms")
  assert left == ([B, A] if stop == "rename" else [B])
  call("clean", work=copy, arm=",".join(left))
  assert not any((copy / "arms").iterdir())


def test_an_arm_of_an_older_version_gets_its_name(call, copy):
  arms = copy / "arms"
  for path in (arms / "main", arms / "main.json"):
    path.unlink()
  before = small_run.read_bytes(arms / A)
  (arms / A).rename(arms / "main")
  _, said = call("export-selection", work=copy)
  assert "making arms/main/exports/verbatim" in said
  shutil.rmtree(arms / "main/exports")
  _, said = call("select", work=copy, **{"select.budget": "5%"})
  assert f"arms/main of an older version is now arms/{A}" in said
  assert small_run.read_bytes(arms / A) == before
  assert Workdir(copy).resolve("main") == "kl-5%-seed0"


def test_a_copy_that_follows_links_is_read_by_its_pointer(call, copy, tmp_path):
  followed = tmp_path / "followed"
  shutil.copytree(copy, followed)
  assert arm_pointers.list_arms(followed / "arms") == [B, A]
  _, said = call("select", work=followed, **{"select.budget": "10%"})
  assert "arms/main is a folder, although it should be a link" in said
  assert Workdir(followed).resolve("main") == B


def test_commands_that_read_no_arm_refuse_the_flag(there_and_back, base, capfd):
  folder, _, _ = there_and_back
  readers = [name for name, command in COMMANDS.items() if "arm" in command.flags]
  for command in COMMANDS.keys() - {*readers}:
    given = ["x", command, "--config=demo", f"--workdir={folder}", f"--arm={A}"]
    assert main.run(given) == 2
    assert f"--arm is read by {', '.join(readers[:-1])}" in capfd.readouterr().err
  for command in ("verify", "assemble"):
    assert main.run(["x", command, f"--arm={A}"]) == 2
    assert "arm" in capfd.readouterr().err
