"""The tables of bounds and strategies: complete, in the pages, and open to more."""

import pathlib

import numpy as np
import pytest

from mllm_selector_jax.pipeline import heldout_models, needs
from mllm_selector_jax.scoring.signals import SIGNALS
from mllm_selector_jax.selection import bounds, strategies
from mllm_selector_jax.selection.eligibility import sort_out
from mllm_selector_jax.selection.heldout_loss import Doubt
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.reasons import MEANINGS, REASONS
from mllm_selector_jax.selection.strategies import STRATEGIES, Strategy, select
from mllm_selector_jax.types import InputError
from tests.selection.pools import make_pool

METHOD = pathlib.Path(__file__).parents[2] / "docs" / "method.md"


def bound_row(name):
  bound = bounds.BOUNDS[name]
  return f"| `{name}` | {bound.words} | {bound.cost or '-'} |"


def strategy_row(name):
  own = STRATEGIES[name]
  reads = ["groups"] * own.groups + ["embeddings"] * own.embeddings
  reads += [f"`{signal}`" for signal in own.signals] + ["the bound"] * own.bounded
  return f"| `{name}` | {own.takes} | {', '.join(reads) or '-'} | {own.source or '-'} |"


@pytest.mark.parametrize(
  "row",
  [*map(bound_row, bounds.BOUNDS), *map(strategy_row, STRATEGIES)],
  ids=[*bounds.BOUNDS, *STRATEGIES],
)
def test_the_page_has_the_row_of_each(row):
  assert row in METHOD.read_text().splitlines()


@pytest.mark.parametrize("name", bounds.BOUNDS)
def test_a_bound_says_what_it_is_and_reads_what_there_is(name):
  bound = bounds.BOUNDS[name]
  assert bound.words and set(bound.signals) <= set(SIGNALS)
  assert bound.held_out in ("", *heldout_models.MAKERS)
  assert (bound.reason in REASONS and MEANINGS[bound.reason]) or name == "none"


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_says_what_it_reads(name):
  own = STRATEGIES[name]
  assert own.takes and set(own.signals) <= set(SIGNALS)
  assert set(own.settings) <= set(SelectOptions.__dataclass_fields__)
  scores, groups = make_pool(200)
  chosen = select(scores, groups, 50, 0, SelectOptions(name, bound=0.3))
  suspect = np.char.startswith(chosen.reason.astype(str), bounds.PREFIX)
  if name != "visnec":  # its own rule takes rows out for a reason of the bounds
    assert suspect.any() == own.bounded


@pytest.mark.parametrize("name", bounds.BOUNDS)
def test_answers_matter_only_to_bounds_that_go_by_skill(name):
  rng = np.random.default_rng(0)
  right = (rng.random(600) < 0.9).astype(np.float64)
  loss = np.where(right, 0.1, 3) + rng.random(600) * 0.1
  scores, groups = make_pool(
    600,
    count=1,
    necessity=loss,
    signals={"loss": loss, "accuracy": right},
    doubt=Doubt(loss, right),
    seen=None,
    # A model that always gives one answer: it is right wherever that stands.
    answer=right.astype(np.uint64),
  )
  found = sort_out(scores, groups, 0, SelectOptions(bound=name), True).suspect
  assert found.any() == (name == "quantile")
  assert not bounds.BOUNDS[name].by_skill or not found.any()


def test_a_bound_is_one_entry(monkeypatch):
  def find(inputs):
    wrong = inputs.signals["accuracy"] < 1
    return bounds.Suspects(wrong, {"rows that are right": {"groups": 1, "rows": 2}})

  own = bounds.Bound(find, "wrong rows", "suspect: wrong", signals=("accuracy",))
  monkeypatch.setitem(bounds.BOUNDS, "wrong", own)
  scores, groups = make_pool()
  options = SelectOptions(bound="wrong")
  chosen = select(scores, groups, 100, 0, options)
  wrong = scores.signals["accuracy"] < 1
  assert set(chosen.reason[wrong]) == {"suspect: wrong"}
  assert "suspect: wrong" not in set(chosen.reason[~wrong])
  assert chosen.spared == {"rows that are right": {"groups": 1, "rows": 2}}
  settings = {"strategy": "kl", "bound": "wrong", "competence": 0.0, "signal": "loss"}
  assert needs.list_signals(settings) == {
    "accuracy": "select.bound wrong",
    "loss": "select.signal",
  }
  with pytest.raises(InputError, match="mixture, probe, thorough, wrong, or a number"):
    SelectOptions(bound="nine")


def test_a_strategy_is_one_entry(monkeypatch):
  def last(scores, groups, budget, rng, options):
    return strategies.STRATEGIES["top"].function(scores, groups, budget, rng, options)

  monkeypatch.setitem(STRATEGIES, "last", Strategy(last, "the last", signals=("el2n",)))
  scores, groups = make_pool()
  chosen = select(scores, groups, 100, 0, SelectOptions("last"))
  # Draws decide between equal rows, and the name is the draws' purpose.
  top = select(scores, groups, 100, 0, SelectOptions("top"))
  assert chosen.gain[chosen.kept].min() == top.gain[top.kept].min()
  settings = {"strategy": "last", "bound": "none", "competence": 0.0, "signal": "loss"}
  assert needs.list_signals(settings)["el2n"] == "select.strategy last"
  with pytest.raises(InputError, match=r"strategy is 'first'; allowed: kl,.*last"):
    select(scores, groups, 100, 0, SelectOptions("first"))


def test_a_bound_s_reason_begins_as_all_do():
  with pytest.raises(InputError, match="must begin with 'suspect: '"):
    bounds.Bound(lambda inputs: None, "rows", "wrong")
