"""Names of plug-ins: what they lead to, and what is said where they lead nowhere."""

import dataclasses
import hashlib
import re
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import mllm_selector_jax
from mllm_selector_jax import plugins
from mllm_selector_jax.data import formats
from mllm_selector_jax.evaluation import metrics
from mllm_selector_jax.runs import failures
from mllm_selector_jax.scoring import signals, token_signals
from mllm_selector_jax.selection import bounds, strategies
from mllm_selector_jax.selection.eligibility import sort_out
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.strategies import select
from mllm_selector_jax.types import InputError
from tests import example_plugin
from tests.selection.pools import make_pool

STRATEGY = "example_plugin.strategy:LONGEST"
BOUND = "example_plugin.bound:ERROR_NORM"


@pytest.fixture
def example(monkeypatch):
  example_plugin.add(monkeypatch)


@pytest.fixture
def write(tmp_path, monkeypatch):
  """Writes a module of the user's."""
  monkeypatch.syspath_prepend(tmp_path)

  def call(text, name="mine"):
    monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / f"{name}.py").write_text(text)
    return tmp_path / f"{name}.py"

  return call


def find(name, lookup=strategies.LOOKUP):
  with plugins.trusting({"select.strategy": name}):
    return lookup.find(name, "select.strategy")


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("klx", "", r"'klx' \(did you mean kl\?\); allowed: kl, .*module:function"),
    ("a:b:c", "", "'a:b:c'; allowed: kl"),
    ("nowhere:f", "", "no module 'nowhere'. Install .*PYTHONPATH"),
    ("nowhere.deep:f", "", "no module 'nowhere'"),
    ("mine.deep:f", "", "no module 'mine.deep'"),
    ("mine:f", "def g(): pass\n", r"'mine' \(.*mine.py\) has no 'f'; it has g"),
    ("mine:f", "import nowhere\n", "'mine' imports 'nowhere', which is not installed"),
    ("mine:f", "x = 1\n1 / 0\n", r"raises ZeroDivisionError .*\(mine.py, line 2\)"),
    ("mine:f", "\nf = (\n", r"raises SyntaxError .*\(mine.py, line 2\)"),
    ("mine:f", "raise SystemExit(3)\n", "raises SystemExit when it is imported: 3"),
    ("mine:f", "f = 5\n", r"it is a int; a strategy is a function \(scores"),
  ],
)
def test_a_name_that_leads_nowhere_says_why(write, name, text, message):
  write(text)
  with pytest.raises(InputError, match=f"select.strategy is '{name}|{message}") as told:
    find(name)
  assert re.search(message, str(told.value)) and name in str(told.value)


@pytest.mark.parametrize(
  ("lookup", "text", "message"),
  [
    (bounds.LOOKUP, "f = 'x'\n", "a bound is a function from Inputs"),
    (metrics.LOOKUP, "f = 1\n", "a metric is a function"),
    (signals.LOOKUP, "f = 1\n", "a signal is a function"),
    (formats.LOOKUP, "f = print\n", "a format is a subclass of data.formats.PoolFile"),
    (
      formats.LOOKUP,
      "from mllm_selector_jax.data.formats import PoolFile\nclass f(PoolFile): pass\n",
      "the class lacks copy, matches, read, records",
    ),
    (
      signals.LOOKUP,
      "from mllm_selector_jax.scoring.signals import Signal\nf = Signal()\n",
      "a Signal has either tokens or columns",
    ),
  ],
)
def test_what_is_nothing_of_the_kind_is_refused(write, lookup, text, message):
  write(text)
  with pytest.raises(InputError, match=message):
    find("mine:f", lookup)


def test_nothing_is_imported_that_the_config_does_not_name(write):
  write("raise AssertionError('imported')\n")
  for name in ("mine:f", "mine:g"):
    with plugins.trusting({"select.strategy": "kl", "compare.variants": {"a": "mine"}}):
      with pytest.raises(InputError, match="is not named by the config of this run"):
        strategies.LOOKUP.find(name, "select.strategy")
  assert "mine" not in sys.modules
  with pytest.raises(InputError, match="raises AssertionError"):
    find("mine:f")
  with pytest.raises(InputError, match="is not named"):  # the context has ended
    strategies.LOOKUP.find("mine:f", "select.strategy")


@pytest.mark.parametrize(
  "value",
  [
    "mine:f",
    "kl, mine:f",
    ("kl", "mine:f"),
    "a: bound=mine:f, floor=0; b: bound=none",
    {"a": {"bound": "mine:f"}},
  ],
)
def test_names_are_found_in_every_form_of_a_setting(write, value):
  write("def f(inputs):\n  return inputs.normalised_necessity > 2\n")
  with plugins.trusting({"select.search.bound": None, "compare.variants": value}):
    assert callable(bounds.LOOKUP.find("mine:f", "select.bound").find)
    assert "mine:f" in plugins.list_given("compare.variants")
  assert plugins.list_given("compare.variants") == ()


def test_the_table_goes_before_plug_ins_and_entry_points_have_short_names(
  monkeypatch, tmp_path
):
  example_plugin.install(monkeypatch, tmp_path)
  for lookup, name in (
    (strategies.LOOKUP, "longest"),
    (bounds.LOOKUP, "error_norm"),
    (metrics.LOOKUP, "first_word"),
    (signals.LOOKUP, "margin"),
    (formats.LOOKUP, "tsv"),
  ):
    assert name in lookup.list_names() and name not in lookup.table
    assert find(name, lookup) is not None
    with pytest.raises(InputError, match="not named by the config"):
      lookup.find(name, "an option")
  assert find("kl") is strategies.STRATEGIES["kl"]
  other = tmp_path / "other"
  (other / "other-1.dist-info").mkdir(parents=True)
  (other / "other-1.dist-info/METADATA").write_text("Name: other\nVersion: 1\n")
  points = "[mllm_selector_jax.strategies]\nlongest = other:f\nkl = other:f\n"
  (other / "other-1.dist-info/entry_points.txt").write_text(points)
  monkeypatch.syspath_prepend(other)
  with pytest.raises(InputError, match=r"several .*LONGEST, other:f. Give one"):
    find("longest")
  assert find("kl") is strategies.STRATEGIES["kl"]


def test_a_hash_follows_the_files_that_define_a_plug_in(write):
  path = write("from helper import f\nVERSION = 1\n")
  helper = write("def f(): pass\n", "helper")

  def digest():
    with plugins.trusting({"a": "mine:f"}):
      return strategies.LOOKUP.identify("kl", "mine:f", 0.15)

  before = digest()
  text = path.read_bytes() + helper.read_bytes()
  assert before == {"strategy mine:f": hashlib.sha256(text).hexdigest()}
  helper.write_text("def f(): return 1\n")
  assert digest() != before
  helper.write_text("def f(): pass\n")
  assert digest() == before
  path.write_text("from helper import f\nVERSION = 2\n")
  assert digest() != before


def test_a_strategy_and_a_bound_of_one_s_own_select(example):
  scores, groups = make_pool()
  with plugins.trusting({"strategy": STRATEGY, "bound": BOUND}):
    options = SelectOptions(STRATEGY, bound=BOUND)
    chosen = select(scores, groups, 60, 0, options)
    suspect = sort_out(scores, groups, 0, options, True).suspect
    sizes = np.bincount(groups.index)
    np.testing.assert_array_equal(
      np.bincount(groups.index[suspect]),
      np.where(sizes >= 8, sizes // 10, 0)[: groups.index[suspect].max() + 1],
    )
    reason = "suspect: the seed model expects another answer"
    assert set(chosen.reason[suspect]) == {reason}
    free = np.sort(scores.tokens[~suspect])[::-1]
    assert scores.tokens[chosen.kept].tolist().sort() == free[:60].tolist().sort()
    assert scores.tokens[chosen.kept].min() >= free[59]
    assert not (chosen.kept & suspect).any()
    # What a fuller budget takes at last says so, whoever made the reason.
    full = select(scores, groups, 600, 0, options)
    assert set(full.reason[suspect]) == {"kept to fill the budget"}
    small = dict(scores.signals)
    del small["el2n"]
    lacking = dataclasses.replace(scores, signals=small)
    with pytest.raises(InputError, match=f"select.bound {BOUND} needs .*'el2n'"):
      select(lacking, groups, 60, 0, options)


def test_the_public_function_trusts_whom_its_caller_names(example):
  losses, rng = np.arange(40.0), np.random.default_rng(0)
  tokens = rng.permutation(40) + 5
  chosen = mllm_selector_jax.select(
    losses,
    groups=np.zeros(40, int),
    budget=5,
    strategy=STRATEGY,
    tokens=tokens,
    bound=BOUND,
    signals={"el2n": np.zeros(40)},
  )
  assert set(tokens[chosen.rows]) == {40, 41, 42, 43, 44}


@pytest.mark.parametrize(
  ("text", "error", "message"),
  [
    (
      "return 1 / 0",
      plugins.PluginError,
      r"select.strategy mine:f raised Zero.*mine.py",
    ),
    ("return 5", InputError, "returned a int; a strategy returns a selection"),
    (
      "from mllm_selector_jax.selection import strategies as s\n"
      "  half = type(scores)(scores.necessity[:9], scores.key[:9])\n"
      "  top = s.STRATEGIES['top'].function\n"
      "  groups = groups._replace(index=groups.index[:9])\n"
      "  return top(half, groups, 5, rng, options)",
      InputError,
      "decided about 9 rows of 600",
    ),
  ],
)
def test_a_faulty_strategy_is_named(write, text, error, message):
  write(f"def f(scores, groups, budget, rng, options):\n  {text}\n")
  scores, groups = make_pool()
  with plugins.trusting({"a": "mine:f"}), pytest.raises(error, match=message) as told:
    select(scores, groups, 60, 0, SelectOptions("mine:f"))
  text, status = failures.explain(told.value, "select", None)
  assert "mine:f" in text and status == (2 if error is InputError else 1)
  assert "fault of the program" not in text


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("inputs.normalised_necessity", "returned float64 of shape .600,."),
    ("inputs.seen[:5]", "returned bool of shape .5,.; .* 600 rows"),
  ],
)
def test_a_faulty_bound_is_named(write, text, message):
  write(f"def f(inputs):\n  return {text}\n")
  scores, groups = make_pool()
  with plugins.trusting({"a": "mine:f"}), pytest.raises(InputError, match=message):
    select(scores, groups, 60, 0, SelectOptions(bound="mine:f"))


def test_a_metric_of_one_s_own_marks(example, write):
  name = "example_plugin.metric:first_word"
  write("def f(prediction, answers):\n  return 7\n")
  with pytest.raises(InputError, match=r"evaluate.metrics has .* is not named by"):
    metrics.mark(name, "Two dogs", ["two cats"])
  with plugins.trusting({"evaluate.metrics": f"{name},mine:f"}):
    assert metrics.mark(name, "Two dogs", ["a", "two cats"]) == 1
    assert metrics.mark(name, "", ["two cats"]) == 0
    with pytest.raises(
      InputError, match=r"mine:f returned 7.0; a score must be from 0 to 1"
    ):
      metrics.mark("mine:f", "a", ["a"])


def test_signals_of_one_s_own_are_computed(example, write):
  write("def f(logits, targets, hidden):\n  return logits\n")
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(9, 5)).astype(np.float32)
  targets, hidden = rng.integers(0, 5, 9), np.zeros((9, 4), np.float32)
  names = ("loss", "example_plugin.signal:margin", "example_plugin.signal:SURPRISE")
  with plugins.trusting({"score.signals": (*names, "mine:f", "mine:g")}):
    plugged = signals.find_plugged(names)
    functions = signals.list_token_signals(names)
    wrong = signals.list_token_signals(("mine:f",))
    with pytest.raises(InputError, match=r"score.signals names 'mine:g'.* no 'g'"):
      signals.find_plugged(("mine:g",))
  assert [*plugged] == [*names[1:]]
  tokens = jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(hidden)
  found = token_signals.plugged_signals(functions, *tokens)
  expected = logits.max(1) - logits[np.arange(9), targets]
  np.testing.assert_allclose(found[names[1]], expected, rtol=1e-6)
  with pytest.raises(InputError, match=r"mine:f has the shape \(9, 5\)"):
    token_signals.plugged_signals(wrong, *tokens)
  columns = signals.plugged_columns(
    plugged,
    {names[1]: np.array([6.0, 2.0])},
    np.array([3, 1]),
    {"loss": np.array([2.0, 1.0]), "entropy": np.array([0.5, 3.0])},
  )
  assert {name: each.tolist() for name, each in columns.items()} == {
    names[1]: [2.0, 2.0],
    names[2]: [1.5, -2.0],
  }


def test_the_page_s_examples_are_those_that_are_tested():
  page = (example_plugin.FOLDER.parents[1] / "docs/extending.md").read_text()
  shown = re.findall(r"```(?:python|toml)\n(.*?)```", page, re.DOTALL)
  files = [*(example_plugin.FOLDER / "example_plugin").glob("[!_]*.py")]
  files.append(example_plugin.FOLDER / "pyproject.toml")
  assert sorted(shown) == sorted(path.read_text() for path in files)
