"""Limits as people write them, and columns of one value or several."""

import numpy as np
import pytest

from mllm_selector_jax.selection.limits import make_column, read_amounts
from mllm_selector_jax.types import InputError


@pytest.mark.parametrize(
  ("value", "wanted"),
  [
    (None, None),
    ("", None),
    ("image=2", {"image": "2"}),
    (" topic = 10% , image=1_000 ", {"image": "1000", "topic": "10%"}),
    ({"topic": "2.5%", "image": 3}, {"image": "3", "topic": "2.5%"}),
    ("a=b=2", {"a=b": "2"}),
  ],
)
def test_amounts_are_read(value, wanted):
  assert read_amounts(value, "select.most") == wanted
  assert read_amounts(wanted, "select.most") == wanted


@pytest.mark.parametrize(
  "value",
  [
    *("image", "image=", "=2", "image=0", "image=-1", "image=1.5", "image=two"),
    *("image=0%", "image=101%", "image=2,image=3", 5, True, ["image=2"], {"a": None}),
    *({"a": True}, {"a": 1.5}, {1: 2}, "image=2tok"),
  ],
)
def test_amounts_that_are_none_are_refused(value):
  with pytest.raises(InputError, match=r"select\.least"):
    read_amounts(value, "select.least")


def test_columns_of_one_value_or_several():
  column = make_column(np.array(["b", None, "a", "b"], object))
  assert column.names == ("a", "b")
  assert column.bounds.tolist() == [0, 1, 1, 2, 3]
  assert column.index.tolist() == [1, 0, 1]
  # A row that has an image twice has it once.
  column = make_column(np.array(["x", "x", "y"]), np.array([1, 1, 2]), 4)
  assert column.bounds.tolist() == [0, 0, 1, 2, 2]
  numbers = make_column(np.array([3, 10, 3]))
  assert numbers.names == ("3", "10") and numbers.index.tolist() == [0, 1, 0]
  empty = make_column(np.array([None, None], object))
  assert empty.names == () and empty.bounds.tolist() == [0, 0, 0]
