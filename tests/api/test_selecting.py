"""Selecting from plain arrays: the same rows as inside a run, whatever holds them."""

import datasets
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
import torch

import mllm_selector_jax as ms
from mllm_selector_jax.api import plain_arrays
from mllm_selector_jax.selection import groups as grouping
from mllm_selector_jax.selection import strategies
from mllm_selector_jax.selection.options import SelectOptions

ROWS = 400
RNG = np.random.default_rng(0)
LOSSES = RNG.gamma(2.0, size=ROWS)
EMBEDDINGS = RNG.normal(size=(ROWS, 8)).astype(np.float32)
LABELS = RNG.choice(["chart", "scene", "sign"], ROWS)
ACCURACIES = RNG.uniform(size=ROWS)


def test_the_example_of_the_docstring():
  chosen = ms.select([0.1, 2.0, 1.5, 0.2], groups=["a", "a", "b", "b"], budget=2)
  assert sorted(chosen.rows.tolist()) == [1, 2]
  dataset = datasets.Dataset.from_dict({"text": ["w", "x", "y", "z"]})
  assert sorted(dataset.select(chosen.rows)["text"]) == ["x", "y"]


@pytest.mark.parametrize("strategy", ["kl", "top", "random", "coincide", "k_center"])
def test_it_is_what_the_strategy_selects(strategy):
  chosen = ms.select(
    LOSSES, EMBEDDINGS, LABELS, "10%", strategy, 3, accuracies=ACCURACIES
  )
  scores = strategies.Scores(
    necessity=LOSSES,
    key=plain_arrays.hash_names(None, list(range(ROWS))),
    signals={"loss": LOSSES, "accuracy": ACCURACIES},
    embeddings=EMBEDDINGS,
  )
  groups = grouping.by_column(LABELS.astype(object), "group")
  wanted = strategies.select(
    scores, groups, "10%", 3, SelectOptions(strategy=strategy, bound="mixture")
  )
  np.testing.assert_array_equal(chosen.kept, wanted.kept)
  np.testing.assert_array_equal(np.argsort(wanted.rank)[-len(chosen) :], chosen.rows)
  assert chosen.reasons == wanted.reason.tolist() and len(chosen) == ROWS // 10


@pytest.mark.parametrize(
  "convert",
  [
    np.asarray,
    jnp.asarray,
    torch.as_tensor,
    lambda x: torch.as_tensor(x).double(),
    lambda x: x.tolist(),
    lambda x: pa.chunked_array([pa.array(x.tolist())]),
    lambda x: datasets.Dataset.from_dict({"x": x.tolist()})["x"],
  ],
  ids=["numpy", "jax", "torch", "double", "list", "arrow", "datasets"],
)
def test_arrays_of_any_library(convert):
  losses, embeddings = LOSSES.astype(np.float32), EMBEDDINGS
  wanted = ms.select(losses, embeddings, budget=40)
  found = ms.select(convert(losses), convert(embeddings), budget=40)
  np.testing.assert_array_equal(found.rows, wanted.rows)


def test_half_precision_of_torch():
  losses = torch.as_tensor(LOSSES).bfloat16()
  assert len(ms.select(losses, budget=7)) == 7


@pytest.mark.parametrize("strategy", ["kl", "random", "coincide"])
def test_with_ids_the_order_of_rows_is_no_matter(strategy):
  ids = np.array([f"sample {n}" for n in range(ROWS)])
  order = np.random.default_rng(1).permutation(ROWS)
  one = ms.select(LOSSES, EMBEDDINGS, LABELS, 50, strategy, ids=ids)
  other = ms.select(
    LOSSES[order], EMBEDDINGS[order], LABELS[order], 50, strategy, ids=ids[order]
  )
  assert one.ids == other.ids


def test_rows_that_are_no_number_are_named():
  losses = LOSSES.copy()
  losses[[3, 5]] = np.nan, np.inf
  chosen = ms.select(losses, EMBEDDINGS, budget=ROWS)
  assert chosen.reasons[3] == chosen.reasons[5] == "not a number"
  assert not chosen.kept[[3, 5]].any() and chosen.kept.sum() == ROWS - 2
  assert np.isnan(chosen.necessity[[3, 5]]).all() and chosen.groups[3] == ""


def test_rows_are_forced_in_and_left_out():
  forced, left = np.arange(ROWS) == 7, np.arange(ROWS) < 5
  chosen = ms.select(LOSSES, groups=LABELS, budget=20, force_in=forced, leave_out=left)
  assert chosen.kept[7] and not chosen.kept[:5].any() and chosen.rows[0] == 7
  assert chosen.reasons[7] == "forced in" and chosen.reasons[0] == "left out"


def test_a_budget_in_tokens():
  tokens = np.full(ROWS, 100)
  assert len(ms.select(LOSSES, budget="2ktok", tokens=tokens)) == 20


def test_a_budget_in_flops():
  tokens = np.arange(1, ROWS + 1)
  whole = ms.select(LOSSES, budget=f"{tokens.sum() // 4}tok", tokens=tokens)
  share = ms.select(LOSSES, budget="25%flops", flops=3e15 * tokens)
  np.testing.assert_array_equal(share.rows, whole.rows)


def test_the_tables_have_a_line_a_row():
  chosen = ms.select(LOSSES, groups=LABELS, budget=20)
  table = chosen.to_table()
  assert table.num_rows == ROWS
  assert table.filter(pa.compute.field("kept"))["rank"].to_pylist() == [
    chosen.rows.tolist().index(row) for row in np.flatnonzero(chosen.kept)
  ]
  frame = chosen.to_pandas()
  assert frame["reason"].tolist() == chosen.reasons
  assert set(frame["group"]) == {"group chart", "group scene", "group sign"}


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"losses": [["a"]]}, "losses must be numbers"),
    ({"losses": np.ones((3, 2))}, r"losses has the shape \(3, 2\)"),
    ({"losses": []}, r"losses has the shape \(0,\)"),
    ({"losses": [np.nan] * 3}, "none of 3 is a finite number"),
    ({"embeddings": np.ones((2, 4))}, "embeddings has 2 entries, but there are 3"),
    ({"embeddings": [1.0, 2.0, 3.0]}, "one vector for each row"),
    ({"groups": ["a"]}, "groups has 1 entries"),
    ({"ids": ["a", "a", "b"]}, "1 of 3 repeat an earlier one"),
    ({"ids": ["a", "b"]}, "ids has 2 entries"),
    ({"strategy": "best"}, "best"),
    ({"weight": 2}, "no option 'weight'"),
    ({"budget": "5 apples"}, "budget"),
    ({"strategy": "el2n"}, "el2n"),
    ({"strategy": "k_center"}, "embeddings"),
    ({"force_in": [0, 1, 0]}, "force_in must be"),
    ({"tokens": [1.5, 2, 3], "budget": "9tok"}, "tokens must be whole numbers"),
    ({"budget": "9Gflops"}, "rows' FLOPs are not known"),
    ({"bound": "mixture"}, "accuracy"),
  ],
)
def test_wrong_input_is_one_message(arguments, message):
  with pytest.raises(ms.InputError, match=message):
    ms.select(**({"losses": [1.0, 2.0, 3.0], "groups": list("aab")} | arguments))


def test_budgets_relative_to_a_reference():
  reference = np.arange(ROWS) < 41
  chosen = ms.select(LOSSES, EMBEDDINGS, budget="50%ref", reference=reference)
  wanted = ms.select(LOSSES, EMBEDDINGS, budget=21)
  np.testing.assert_array_equal(chosen.rows, wanted.rows)
  own = {"budget": "100%ref", "strategy": "reference", "reference": reference}
  same = ms.select(LOSSES, EMBEDDINGS, **own)
  np.testing.assert_array_equal(same.kept, reference)
  left_out = np.arange(ROWS) == 7
  losses = np.where(np.arange(ROWS) == 5, np.nan, LOSSES)
  fewer = ms.select(losses, EMBEDDINGS, leave_out=left_out, **own)
  np.testing.assert_array_equal(fewer.kept, reference & ~left_out & np.isfinite(losses))
  with pytest.raises(ms.InputError, match="budget is 50%ref, a share of the rows"):
    ms.select(LOSSES, EMBEDDINGS, budget="50%ref")
