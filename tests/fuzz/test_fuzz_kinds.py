"""A small sample of the inputs of every kind; benchmarks/fuzz.py reads a million."""

import json
import pathlib
import random
import sys
import warnings

import pytest

from tests.fuzz import kinds, mutators, reached

KINDS = {kind.name: kind for kind in kinds.list_kinds()}
CASES = 12


@pytest.mark.parametrize("name", KINDS)
def test_whatever_is_read_is_taken_or_refused(name, tmp_path):
  kind = KINDS[name]
  sampler = kinds.Sampler(kind._replace(examples=min(kind.examples, 2)), tmp_path)
  sampler.check_examples()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Pillow's, of damaged files
    outcomes = {sampler.run(seed) for seed in range(CASES)}
  assert outcomes <= {kinds.TAKEN, kinds.ASIDE, kinds.REFUSED}
  sampler.check_examples()  # the sound files are back in their place


def test_every_benchmark_has_a_kind():
  from mllm_selector_jax.evaluation.published import BENCHMARKS

  named = {name.split()[1].lower() for name in KINDS if name.startswith("questions")}
  assert named == {*BENCHMARKS, "own"}


def test_mutations_change_files_and_follow_from_the_seed():
  value = {"a": [1, {"b": "c"}], "d": "e"}
  data = json.dumps(value).encode()
  changed = [mutators.mutate_json(data, random.Random(seed)) for seed in range(200)]
  assert changed == [
    mutators.mutate_json(data, random.Random(seed)) for seed in range(200)
  ]
  assert len(set(changed)) > 150
  assert json.dumps(value).encode() == data

  def parses(text):
    try:
      json.loads(text)
    except (ValueError, RecursionError):
      return False
    return True

  assert sum(map(parses, changed)) > 150  # they are changed by grammar


def test_a_find_is_not_hidden(tmp_path):
  def write(folder, number):
    (folder / "a.txt").write_text("sound")

  def read(folder):
    if (folder / "a.txt").read_text() != "sound":
      raise KeyError("a fault")
    return kinds.TAKEN

  sampler = kinds.Sampler(kinds.Kind("faulty", write, read), tmp_path)
  with pytest.raises(KeyError):
    for seed in range(20):
      sampler.run(seed)
  assert sampler.latest.changed and read(tmp_path / "0") == kinds.TAKEN


# Each on a line of its own, which is run when the one before is true.
STEPS = (
  lambda value: value.get("a") != [1, 2],
  lambda value: value.get("b") != [1, 2],
  lambda value: value.get("c") != [1, 2],
  lambda value: value.get("d") != [1, 2],
  lambda value: value.get("e") != [1, 2],
  lambda value: value.get("f") != [1, 2],
)


def read_deeply(folder):
  """A reader whose fault six changes lead to, one after the other."""
  try:
    value = json.loads((folder / "a.json").read_bytes())
  except (ValueError, RecursionError):
    return kinds.ASIDE
  if not isinstance(value, dict) or len(value) < len(STEPS):
    return kinds.TAKEN
  if all(step(value) for step in STEPS):
    raise KeyError("a fault")
  return kinds.TAKEN


@pytest.mark.skipif(sys.version_info < (3, 12), reason="lines are not told before 3.12")
def test_a_case_that_runs_new_lines_is_changed_further(tmp_path):
  def write(folder, number):
    kinds.write_json(folder / "a.json", {key: [1, 2] for key in "abcdef"})

  def count_cases(guided):
    """The number of cases until the fault is found."""
    seen = reached.Reached((pathlib.Path(__file__).parent.name,))
    try:
      guide = seen if guided else None
      kind = kinds.Kind("deep", write, read_deeply)
      sampler = kinds.Sampler(kind, tmp_path / str(guided), guide)
      seen.restart()
      for seed in range(3000):
        try:
          sampler.run(seed)
        except KeyError:
          break
      return seed
    finally:
      seen.close()

  assert 3 * count_cases(guided=True) < count_cases(guided=False)
