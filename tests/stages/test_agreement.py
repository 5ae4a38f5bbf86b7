"""Processes with different settings end with a message instead of waiting for good."""

import time

import pytest

from mllm_selector_jax.command_line import default_config
from mllm_selector_jax.runs import agreement
from mllm_selector_jax.settings.keys import KEYS
from tests.models import tiny
from tests.real_processes import Forked, fork_each, free_port, write_config

SECONDS = 60  # for two processes to start beside each other, and to end
SETTINGS = {"pool.demo.rows": 60, "pool.demo.questions": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A base, a config, and a workdir with a checked pool."""
  place = tmp_path_factory.mktemp("agreement")
  base = tiny.make_base(place / "base")
  config = write_config(place / "config.py", base, **SETTINGS)
  status, said = Forked(place / "work", config, "check").end(120)
  assert status == 0, said
  return place


def end(pair):
  begin = time.monotonic()
  ended = [process.end(SECONDS) for process in pair]
  print(f"{time.monotonic() - begin:.1f} s", ended)  # shown when it fails
  return ended


@pytest.mark.parametrize(
  ("first", "second", "words"),
  [
    (
      ["score", "--config.score.part_rows=16"],
      ["score", "--config.score.part_rows=32"],
      "config.score.part_rows is 16 in process 0 and 32 in process 1",
    ),
    (
      ["seed"],
      ["seed", "--config.seed.learning_rate=0.5", "--config.rng_seed=3"],
      "config.seed.learning_rate is",
    ),
    (
      ["score"],
      ["check"],
      "the command is 'score' in process 0 and 'check' in process 1",
    ),
    (
      ["check", "--force"],
      ["check"],
      "--force is True in process 0 and False in process 1",
    ),
    # Wrong in one process alone: the other one, which waits for it, says so, too.
    (["check"], ["check", "--config.seed.bach=2"], "--config.seed.bach: there is no"),
    (
      ["check", "--config.seed.batch=0"],
      ["check"],
      "config.seed.batch is 0 in process 0 and 32 in process 1",
    ),
  ],
)
def test_what_differs_is_named_by_all(made, first, second, words):
  ended = end(fork_each(made / "work", made / "config.py", first, second))
  assert [status for status, _ in ended] == [2, 2], ended
  for _, said in ended:
    assert said.count("Error: ") == 1 and words in said, said


def test_numbers_of_processes_are_compared(made):
  meeting = f"--coordinator=127.0.0.1:{free_port()}"
  pair = [
    Forked(
      *(made / "work", made / "config.py", "check", meeting),
      *(f"--num_processes={count}", f"--process_id={number}"),
    )
    for number, count in enumerate((2, 3))
  ]
  ended = end(pair)
  assert [status for status, _ in ended] == [2, 2], ended
  for _, said in ended:
    assert "--num_processes is 2 in process 0 and 3 in process 1" in said


def test_what_may_differ_does(made):
  ended = end(
    fork_each(
      made / "work",
      made / "config.py",
      ["check", "--config.seed.threads=1", "--config.log.trackers=tensorboard"],
      ["check", "--config.seed.threads=3", "--config.prepare.workers=1"],
    )
  )
  assert [status for status, _ in ended] == [0, 0], ended


@pytest.mark.parametrize(
  ("lacks", "words"),
  [
    ("base", "There is no directory base"),
    ("work", "is not the folder that process 0 writes to"),
    ("tokenizer", "the hash of processing is"),
  ],
)
def test_files_that_one_process_sees_otherwise_are_named(tmp_path, lacks, words):
  """As two hosts have them: what a relative path means is each process's own."""
  places = [tmp_path / "host0", tmp_path / "host1"]
  base = tiny.make_base(tmp_path / "base")
  (tmp_path / "work").mkdir()
  config = write_config(tmp_path / "config.py", "base", **SETTINGS)
  for number, place in enumerate(places):
    place.mkdir()
    for name in ("base", "work"):
      if number == 0 or lacks != name:
        (place / name).symlink_to(tmp_path / name)
    if number == 1 and lacks == "tokenizer":
      (place / "base").unlink()
      (place / "base").mkdir()
      for path in base.iterdir():
        (place / "base" / path.name).write_bytes(path.read_bytes())
      with open(place / "base" / "tokenizer.json", "a") as file:
        file.write("\n")
  pair = fork_each("work", config, ["check"], ["check"], places=places)
  ended = end(pair)
  assert [status for status, _ in ended] == [2, 2], ended
  for _, said in ended:
    assert words in said, said


def test_a_message_for_many_processes_is_short():
  everyone = [{"a": "1", "b": "2", "c": "x"} for _ in range(64)]
  everyone[3] = {"a": "7", "b": "2"}
  everyone[9]["a"] = "7"
  said = agreement.explain(everyone, "settings").splitlines()
  assert said[0] == "The 64 processes of this run have different settings:"
  assert (
    said[1] == "  a is 1 in processes 0 to 2, 4 to 8, 10 to 63 and 7 in processes 3, 9"
  )
  assert said[2] == "  c is x in processes 0 to 2, 4 to 63 and not there in process 3"
  many = [{str(key): "0" for key in range(20)}, {str(key): "1" for key in range(20)}]
  said = agreement.explain(many, "settings").splitlines()
  assert len(said) == 3 + agreement.MOST and "15 more" in said[-2]


def test_all_settings_but_those_that_may_differ_are_compared():
  described = agreement.describe({"the command": "run"}, default_config())
  compared = {name.removeprefix("config.") for name in described}
  assert not agreement.MAY_DIFFER.keys() - KEYS.keys()
  assert KEYS.keys() - compared == agreement.MAY_DIFFER.keys()
  assert "the version of jax" in described and "jax_enable_x64" in described


def test_one_process_agrees_with_itself():
  agreement.compare({"a": "1"})
