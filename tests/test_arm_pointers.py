"""Pointers to arms: names, files, links, and what an interruption leaves."""

import os

import pytest

from mllm_selector_jax.pipeline.arm_list import ArmLine, format_arms
from mllm_selector_jax.runs import arm_pointers
from mllm_selector_jax.runs.workdir import Workdir
from mllm_selector_jax.types import InputError


@pytest.fixture
def arms(tmp_path):
  for name in ("one", "two"):
    (tmp_path / "arms" / name / "selection").mkdir(parents=True)
  return tmp_path / "arms"


def test_a_pointer_and_its_link_lead_to_the_arm(arms):
  for name in ("one", "two"):
    assert arm_pointers.write(arms, "main", name, link=True) == ""
    assert arm_pointers.read(arms, "main") == name
    assert (arms / "main").readlink().name == name
    assert Workdir(arms.parent).tuned("main").path == arms / name / "tuned"
  assert arm_pointers.list_arms(arms) == ["one", "two"]
  assert arm_pointers.list_pointers(arms) == {"main": "two"}
  arm_pointers.remove(arms, "main")
  assert sorted(path.name for path in arms.iterdir()) == ["one", "two"]
  assert Workdir(arms.parent).resolve("main") == "main"


@pytest.mark.parametrize("call", [1, 2])
def test_a_kill_between_the_writes_leaves_the_old_arm_or_the_new_one(
  arms, monkeypatch, call
):
  arm_pointers.write(arms, "main", "one", link=True)
  replace, calls = os.replace, []

  def die(*names):
    calls.append(names)
    if len(calls) == call:
      raise KeyboardInterrupt
    replace(*names)

  with monkeypatch.context() as patch:
    patch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
      arm_pointers.write(arms, "main", "two", link=True)
  assert arm_pointers.read(arms, "main") == ("one" if call == 1 else "two")
  assert (arms / "main").readlink().name == "one"
  assert arm_pointers.list_arms(arms) == ["one", "two"]
  arm_pointers.write(arms, "main", "two", link=True)
  assert arm_pointers.read(arms, "main") == (arms / "main").readlink().name == "two"


def test_a_file_system_without_links_has_the_pointer_alone(arms, monkeypatch):
  def refuse(*_, **__):
    raise OSError(1, "Operation not permitted")

  monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
  said = arm_pointers.write(arms, "main", "one", link=True)
  assert "could not be made a link to one (Operation not permitted)" in said
  assert Workdir(arms.parent).resolve("main") == "one"


@pytest.mark.parametrize("text", ["", "{}", '{"arm": "../x"}', '{"arm": 3}', "[]"])
def test_a_damaged_pointer_is_named(arms, text):
  (arms / "main.json").write_text(text)
  with pytest.raises(InputError, match=r"main.json does not name an arm; delete it"):
    Workdir(arms.parent).resolve("main")
  assert arm_pointers.list_pointers(arms) == {}


def test_names_are_safe_in_file_systems():
  for name in ("kl-20%-seed0", "kl-0.2-seed0-kl_weight=0.5", "_x"):
    assert arm_pointers.check_name(name) == name
  for name in ("", ".", "..", "a/b", "a b", "-rf", ".x", "a,b", "x" * 200, "a\n"):
    with pytest.raises(InputError, match="cannot be the name of an arm"):
      arm_pointers.check_name(name)
  assert arm_pointers.clean_name("my.module:pick/a b") == "my.module_pick_a_b"


def test_the_table_has_the_columns_that_are_used():
  line = ArmLine("a", ("main",), 1200, 14_200_000_000, ("selected",), None, 0.0, (), ())
  table = format_arms([line, line._replace(name="bb", pointers=(), rows=None)], 7200.0)
  assert table == [
    "arm  is     rows     size  stages    age",
    "a    main  1,200  14.2 GB  selected  2 h",
    "bb   -         -  14.2 GB  selected  2 h",
    "2 arms, 28.4 GB",
  ]
  assert "none yet" in format_arms([])[0]
