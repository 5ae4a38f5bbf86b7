"""Options check themselves."""

import pytest

from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.types import InputError


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("strategy", None),
    ("bound", "best"),
    ("bound", None),
    ("target", "given"),
    ("target", "flat"),
    ("within", "x"),
    ("kl_weight", -1.0),
    ("kl_weight", float("nan")),
    ("kl_weight", "0.4"),
    ("kl_weight", float("inf")),
    ("bound", 1.0),
    ("floor", 1.5),
    ("tempering", -0.1),
    ("temperature", 0.0),
    ("clusters", -1),
    ("clusters", 2.5),
    ("clusters", True),
    ("strata", 0),
    ("competence", 2.0),
    ("groups", ""),
    ("groups", "source*"),
    ("target_shares", (1.0,)),
  ],
)
def test_wrong_values_are_input_errors(field, value):
  with pytest.raises(InputError, match=f"select.{field}|target_shares"):
    SelectOptions(**{field: value})


def test_values_at_the_edges_are_allowed():
  SelectOptions(kl_weight=0, bound=0, floor=1, competence=0.0, groups="source*kmeans")
  SelectOptions(target="given", target_shares=(0.5, 0.5))
