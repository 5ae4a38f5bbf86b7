"""Budgets as people write them."""

from fractions import Fraction

import numpy as np
import pytest

from mllm_selector_jax.selection import budget
from mllm_selector_jax.types import InputError


@pytest.mark.parametrize(
  ("text", "kind", "amount"),
  [
    ("500", "rows", 500),
    (500, "rows", 500),
    ("500 rows", "rows", 500),
    ("1 row", "rows", 1),
    ("10_000", "rows", 10_000),
    ("10,000", "rows", 10_000),
    ("5%", "percent", 5),
    (" 5 % ", "percent", 5),
    ("2Mtok", "tokens", 2_000_000),
    ("1.5ktok", "tokens", 1500),
    ("7 tok", "tokens", 7),
    ("1Gtok", "tokens", 10**9),
    ("3Btok", "tokens", 3 * 10**9),
    ("3e18flops", "flops", 3 * 10**18),
    ("2.5 Eflops", "flops", 25 * 10**17),
    ("40Mflops", "flops", 40_000_000),
    ("5%flops", "flops share", 5),
    ("50%ref", "reference", 50),
    ("0.5 %ref", "reference", Fraction(1, 2)),
    ("250%ref", "reference", 250),
    (np.int64(12), "rows", 12),
  ],
)
def test_reads(text, kind, amount):
  found = budget.parse(text)
  assert (found.kind, found.amount) == (kind, amount)


@pytest.mark.parametrize(
  "text",
  [
    "",
    "0",
    0,
    -5,
    "-5",
    "0%",
    "0tok",
    "many",
    "5%%",
    "1e3",
    "nan",
    "2M",
    True,
    None,
    "5 %tok",
    "0.05",
    0.05,
    "2.5",
    "0%ref",
    "5% ref",
    "5ref",
    "3e18",
    "3e1tok",
    "5e1%flops",
    "101%flops",
    "3kflops",
    "2h",
  ],
)
def test_refuses(text):
  with pytest.raises(InputError, match=r"select\.budget is"):
    budget.parse(text, "select.budget")


def test_a_fraction_hints_at_a_percentage():
  with pytest.raises(InputError, match='as "5%"'):
    budget.parse(0.05)


@pytest.mark.parametrize(
  ("text", "eligible", "rows"),
  [
    ("5%", 1000, 50),
    ("0.1%", 1_000_000, 1000),
    ("5%", 30, 2),
    ("100%", 7, 7),
    ("33.3%", 1000, 333),
    ("500", 500, 500),
    ("1", 9, 1),
  ],
)
def test_resolves_to_rows(text, eligible, rows):
  assert budget.resolve(text, eligible) == budget.Limit(rows)


@pytest.mark.parametrize("text", ["11", "200tok"])
def test_above_what_is_eligible_everything_is_kept_with_a_warning(text):
  limit = budget.resolve(text, 10, {"tokens": np.full(10, 3)})
  assert limit.rows == 10
  assert "above" in limit.warning and "all are kept" in limit.warning


def test_budgets_that_leave_no_row_are_input_errors():
  with pytest.raises(InputError, match="leaves no row; one row is 10%"):
    budget.resolve("1%", 10)
  with pytest.raises(InputError, match="no row of the pool is eligible"):
    budget.resolve("5%", 0)
  with pytest.raises(InputError, match="shortest of the 3 eligible rows has 9 tokens"):
    budget.resolve("8tok", 3, {"tokens": np.array([9, 12, 30])})
  with pytest.raises(InputError, match="not known"):
    budget.resolve("8tok", 3)


def test_flops_are_limited_as_tokens_are():
  tokens = np.array([30, 9, 12])
  costs = {"tokens": tokens, "MFLOPs": 5 * tokens}
  limit = budget.resolve("104Mflops", 3, costs)
  assert (limit.rows, limit.cost, limit.unit) == (3, 104, "MFLOPs")
  assert budget.resolve("50%flops", 3, costs).cost == 255 * 50 // 100
  assert budget.resolve("100%flops", 3, costs) == budget.Limit(3, 255, "MFLOPs")
  nothing = np.zeros(3, bool)

  def first(rows):
    return np.array([1, 2, 0])[:rows]

  for text in ("104Mflops", "105Mflops", "254Mflops", "1e9flops"):
    in_flops = budget.resolve(text, 3, costs)
    rows = budget.fit(in_flops, costs["MFLOPs"], nothing, first)
    sums = np.cumsum(costs["MFLOPs"][first(3)])
    assert rows == np.searchsorted(sums, in_flops.cost, side="right")
    in_tokens = budget.resolve(f"{in_flops.cost // 5}tok", 3, costs)
    assert rows == budget.fit(in_tokens, tokens, nothing, first)
  assert budget.resolve_count("120Mflops", np.ones(3, bool), costs) == 1
  with pytest.raises(InputError, match="rows' FLOPs are not known"):
    budget.resolve("50%flops", 3, {"tokens": tokens})
  with pytest.raises(InputError, match="shortest of the 3 eligible rows has 45 MFLOPs"):
    budget.resolve("44Mflops", 3, costs)


def test_a_larger_share_never_has_fewer_rows():
  rows = [budget.resolve(f"{n / 10}%", 37).rows for n in range(14, 1001)]
  assert rows == sorted(rows)


def test_counts_of_a_random_draw():
  eligible = np.array([1, 1, 0, 1, 1], bool)
  costs = {"tokens": np.array([10, 20, 999, 30, 40])}
  assert budget.resolve_count("50%", eligible, costs) == 2
  assert budget.resolve_count("50tok", eligible, costs) == 2
  assert budget.resolve_count("1ktok", eligible, costs) == 4


@pytest.mark.parametrize(
  ("text", "reference", "rows"),
  [
    ("50%ref", 3001, 1501),  # half a row is rounded up
    ("1%ref", 3000, 30),
    ("0.1%ref", 1_000_000, 1000),
    ("100%ref", 7, 7),
    ("250%ref", 4, 10),
    ("33.3%ref", 10**15, 333 * 10**12),  # beyond what a float holds exactly
  ],
)
def test_a_share_of_the_reference_is_an_exact_number_of_rows(text, reference, rows):
  found = budget.relate(text, reference)
  assert (found.kind, found.amount, found.text) == ("rows", rows, text)
  assert budget.resolve(found, 10**16) == budget.Limit(rows)
  assert budget.is_relative(text) and not budget.is_relative(found)


def test_other_budgets_need_no_reference():
  for text in ("5%", "500", "2Mtok"):
    assert budget.relate(text, None) == budget.parse(text) == budget.relate(text, 9)


def test_a_share_of_no_reference_or_of_no_row_is_an_input_error():
  with pytest.raises(InputError, match=r"^select.budget is 50%ref.*select.reference="):
    budget.relate("50%ref", None, "select.budget")
  with pytest.raises(InputError, match="there is no reference"):
    budget.resolve("50%ref", 100)
  with pytest.raises(InputError, match=r"has 30 rows, which leaves no row.*3.33%ref"):
    budget.relate("1%ref", 30)
  limit = budget.resolve(budget.relate("300%ref", 5), 12)
  assert limit.rows == 12 and "is 300%ref, above the 12 rows" in limit.warning
