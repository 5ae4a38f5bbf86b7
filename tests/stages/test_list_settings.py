"""Every setting that is a list is read in each form that people write."""

import pytest

from mllm_selector_jax import command_line, listing, storage
from mllm_selector_jax.comparison import comparison_plan
from mllm_selector_jax.data.files import splits
from mllm_selector_jax.evaluation import tasks
from mllm_selector_jax.inputs import base_model as bases
from mllm_selector_jax.inputs import held_out, references
from mllm_selector_jax.inputs.lists import read_references
from mllm_selector_jax.pipeline import sweep
from mllm_selector_jax.pipeline.export_arm import choose_forms
from mllm_selector_jax.pipeline.search import search_space
from mllm_selector_jax.runs import context
from mllm_selector_jax.settings import check_settings
from mllm_selector_jax.settings.keys import KEYS
from mllm_selector_jax.types import InputError
from tests import small_run


def read_search(name):
  def read(cfg, run):
    cfg.select.search.candidates = 2
    found = [one[name] for one in search_space.list_products(cfg)]
    return list(dict.fromkeys(found))

  return read


def read_searched(cfg, run):
  cfg.select.search.candidates = 9
  found = [one["strategy"] for one in search_space.list_fixed(cfg)]
  return found[2:]  # after the setting's own and random rows


def read_rows(name):
  def read(cfg, run):
    entries = read_references(cfg.select[name], f"select.{name}")
    rows = references.list_rows(bases.open_pool(run), entries, name)
    return [bases.open_pool(run).id[row] for some in rows for row in some]

  return read


def read_plan(name):
  return lambda cfg, run: [
    str(one) for one in getattr(comparison_plan.read_plan(cfg), name)
  ]


def read_files(cfg, run):
  return [source.files[0] for source in tasks.parse_tasks(cfg.evaluate.tasks)]


def read_strategies(cfg, run):
  found = dict.fromkeys(arm.strategy for arm in comparison_plan.read_plan(cfg).arms)
  return [name for name in found if name not in ("random", "full")]


def read_budgets(cfg, run):
  found = dict.fromkeys(arm.budget for arm in comparison_plan.read_plan(cfg).arms)
  return [budget for budget in found if budget != "100%"]


IDS = "demo-1-000001", "demo-1-000002"  # replaced by two of the pool's own
# Two values of each setting that is a list, and how the stages read them.
LISTS = {
  "pool.data": ("a.json", "b.json", lambda c, r: bases.split_paths(c.pool.data)),
  "pool.images": ("a", "b", lambda c, r: bases.split_paths(c.pool.images)),
  "pool.splits": ("minival", "test", lambda c, r: list(splits.parse(c.pool.splits))),
  "score.signals": ("loss", "ifd", lambda c, r: list(bases.scored_signals(c))),
  "select.like": (*IDS, read_rows("like")),
  "select.force_in": (*IDS, read_rows("force_in")),
  "select.leave_out": (*IDS, read_rows("leave_out")),
  "select.reference": (*IDS, read_rows("reference")),
  "select.sweep.budgets": (
    *("5%", "500", lambda c, r: sweep.read_settings(c.select.sweep)[0]),
  ),
  "select.sweep.kl_weights": (
    *(0.25, 1.0, lambda c, r: sweep.read_settings(c.select.sweep)[1]),
  ),
  "select.search.strategy": ("stratified", "grouped", read_searched),
  "select.search.signal": ("el2n", "grand", read_search("signal")),
  "select.search.kl_weight": (0.25, 1.0, read_search("kl_weight")),
  "select.search.groups": ("source", "source*kmeans", read_search("groups")),
  "select.search.tempering": (0.25, 1.0, read_search("tempering")),
  "select.search.bound": ("none", 0.25, read_search("bound")),
  "select.search.development": (
    *("a.jsonl", "b.jsonl", lambda c, r: held_out.read_files(c)),
  ),
  "select.search.images": (
    *("a", "b", lambda c, r: bases.split_paths(c.select.search.images)),
  ),
  "export_selection.formats": (
    *("ids", "trl", lambda c, r: list(choose_forms(c.export_selection.formats))),
  ),
  "evaluate.tasks": ("a.jsonl", "b.jsonl", read_files),
  "evaluate.images": ("a", "b", lambda c, r: bases.split_paths(c.evaluate.images)),
  "compare.strategies": ("kl", "top", read_strategies),
  "compare.budgets": ("5%", "500", read_budgets),
  "compare.seeds": ("3", "11", read_plan("seeds")),
}
# Lists that have a form of their own.
OTHERS = {
  "plan.price": "a number, or prices by kind of device as name=number",
  "evaluate.rules": "pairs, which commas alone cannot write",
  "model.content_specials": "tokens such as [SEG], whose own brackets are no list's",
}


def write(values):
  """The forms of a list: as Python writes it, and as a shell leaves it."""
  quoted = [repr(value) for value in values]
  plain = [str(value) for value in values]
  return [
    ",".join(plain),
    ", ".join(plain),
    f"[{','.join(quoted)}]",
    f"({','.join(quoted)},)",
    f"[{', '.join(plain)}]",
    f"({','.join(plain)})",
  ]


@pytest.fixture(scope="module")
def current(base, scored):
  with small_run.open_run(scored, base) as run:
    yield run


def parse(key, text):
  argv = ["mllm-selector", "--config=demo", "--workdir=w", f"--config.{key}={text}"]
  return command_line.parse(argv).cfg


@pytest.mark.parametrize("key", LISTS)
def test_every_form_of_a_list_is_that_list(current, key):
  *values, read = LISTS[key]
  if tuple(values) == IDS:
    values = [str(name) for name in bases.open_pool(current).id[:2]]
  for text in write(values):
    cfg = parse(key, text)
    KEYS[key](key, find(cfg, key))
    assert read(cfg, current) == values, text
  for value in values:
    for text in (str(value), f"[{value!r}]", f"({value!r},)"):
      cfg = parse(key, text)
      KEYS[key](key, find(cfg, key))
      assert read(cfg, current) == [value], text


def find(cfg, key):
  for part in key.split("."):
    cfg = cfg[part]
  return cfg


def test_every_setting_that_takes_a_list_is_among_them():
  takes = set()
  for key, check in KEYS.items():
    for value in ("a", "1", "5%", "loss", "none", ("a", "b"), *LISTS.get(key, ())[:1]):
      try:
        check(key, [value])
        takes.add(key)
      except InputError:
        continue
  assert takes == LISTS.keys() | OTHERS.keys()


WRONG = {
  "score.signals": "loss,los",
  "select.signal": "los",
  "select.groups": "sourze",
  "select.search.signal": "loss,los",
  "select.search.groups": "source,sourze",
  "select.strategy": "klx",
  "select.search.bound": "none,nine",
  "export_selection.formats": "ids,trll",
  "compare.strategies": "kl,topp",
  "compare.variants": "a: bond=none",
  "evaluate.tasks": "gqaa:a.json",
  "evaluate.images": "nowhere",
  "score.model": "nowhere",
  "score.table": "nowhere",
  "score.reference": "nowhere",
}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_name_ends_a_run_before_anything_is_made(tmp_path, key):
  cfg = parse(key, WRONG[key])
  with context.open_run(cfg, str(tmp_path)) as run:
    if key == "evaluate.images":
      cfg.evaluate.tasks = str(tmp_path / "a.jsonl")
      (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(InputError, match=key.split(".")[0]):
      check_settings(run, "run")
  assert not (tmp_path / "demo_pool").exists()


@pytest.mark.parametrize(
  ("value", "wanted"),
  [
    (None, []),
    ("", []),
    ([], []),
    ("[]", []),
    (0, ["0"]),
    (0.5, ["0.5"]),
    ("a", ["a"]),
    (" a , b,", ["a", "b"]),
    (["a,b", "c"], ["a", "b", "c"]),
    ("['a', \"b\"]", ["a", "b"]),
    ("'a','b'", ["a", "b"]),
    ("(a),(b)", ["(a)", "(b)"]),
    ("[a]", ["a"]),
    ("(", ["("]),
  ],
)
def test_names_are_split(value, wanted):
  assert listing.split_names(value) == wanted


def test_brackets_of_a_path_are_its_own(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for text in ("[ab].json", "a[1,2].json", "{a,b}.json", "(a)", "[ab]"):
    assert storage.split_paths(text) == [text]
  assert storage.split_paths("[a.json,b[12].json]") == ["a.json", "b[12].json"]
  (tmp_path / "[a,b]").mkdir()
  assert storage.split_paths("[a,b]") == ["[a,b]"]
