"""Cases that only `pytest -m exhaustive` goes through, since there are so many."""

import itertools

import pytest

# One of each way to lay images and to attend; the others are made of the same parts.
USUAL = ("llava", "llava_next", "gemma3", "qwen2_5_vl", "qwen3_5")


def choose(*axes, usual=USUAL):
  """Every combination of the values of some axes, as parameters of a test.

  Args:
    axes: the values of each argument of the test; those of the first are names.
    usual: the names whose combinations every run of the tests goes through.
  """
  return [
    pytest.param(*values, marks=[] if values[0] in usual else pytest.mark.exhaustive)
    for values in itertools.product(*axes)
  ]
