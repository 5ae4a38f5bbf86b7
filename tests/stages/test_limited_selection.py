"""Limits by image and by column, from the settings to the summary."""

import collections
import json

import pyarrow.parquet as pq
import pytest

from mllm_selector_jax.comparison import comparison_plan
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.pipeline.explain_rows import explain_rows
from mllm_selector_jax.types import InputError
from tests import small_run


def read_selection(folder):
  return pq.read_table(folder / "arms/main/selection/selection.parquet").to_pydict()


def read_summary(folder):
  return json.loads((folder / "arms/main/selection/summary.json").read_text())


def tally(run, kept, column):
  pool = base_model.open_pool(run)
  counts = collections.Counter()
  for row in kept:
    values = getattr(pool, column)[row]
    counts.update({values} if isinstance(values, str) else set(values))
  return counts


@pytest.fixture
def count(base):
  """How many kept rows of a workdir have each value of a column."""

  def call(folder, column):
    table = read_selection(folder)
    kept = [row for row, one in zip(table["row"], table["kept"], strict=True) if one]
    with small_run.open_run(folder, base) as current:
      return tally(current, kept, column)

  return call


@pytest.mark.parametrize("strategy", ["kl", "random", "facility_location"])
def test_no_image_and_no_source_gives_more_than_it_may(select, count, strategy):
  _, folder = select(strategy=strategy, budget="60")
  before = count(folder, "image_hashes")
  assert max(before.values()) > 1
  most = max(count(folder, "source").values()) - 3
  _, folder = select(
    strategy=strategy, budget="60", most=f"image=1, source={most}", least="source=2"
  )
  images, sources = count(folder, "image_hashes"), count(folder, "source")
  assert max(images.values()) == 1 and max(sources.values()) == most
  summary = read_summary(folder)
  limits = summary["limits"]
  assert 0 < limits["full"]["image"] <= len(images) and limits["full"]["source"] >= 1
  passed = summary["reasons"]["passed over: its value is full"]
  assert limits["passed_over"] == passed > 0
  assert limits["unmet"]["image"] == 0
  assert summary["options"]["most"] == {"image": "1", "source": str(most)}


def test_what_the_pool_cannot_give_is_in_the_summary(select):
  _, folder = select(budget="100%", least="source=100000")
  (one, *_) = read_summary(folder)["limits"]["unmet_values"]
  assert one["column"] == "source" and one["kept"] < one["least"] == 100000
  assert any("select.least" in text for text in read_summary(folder)["warnings"])


def test_without_limits_selections_are_what_they_were(select):
  _, folder = select()
  account = json.loads((folder / "arms/main/selection/provenance.json").read_text())
  assert not {"most", "least"} & account["config"].keys()
  assert "limits" not in read_summary(folder)


def test_explain_says_what_the_row_would_be_without_the_limit(select):
  _, folder = select(most="image=1", least="source=2", budget="60")
  table = read_selection(folder)
  for reason, option in (
    ("passed over: its value is full", "most"),
    ("reserved for its value", "least"),
  ):
    row = table["reason"].index(reason)
    (text,), _ = select(lambda run, row=row: explain_rows(run, (f"row={row}",)))
    assert reason in text and f"without select.{option}: " in text


def test_numbers_with_fractions_are_no_values(select):
  with pytest.raises(InputError, match=r"select.most names 'loss', whose values are"):
    select(most="loss=2")


def test_baselines_of_a_comparison_have_no_limits(base):
  cfg = small_run.make_config(
    base,
    **{"select.most": "image=1", "select.reference": "a", "compare.budgets": "5%"},
  )
  plan = comparison_plan.read_plan(cfg)
  for arm in plan.arms:
    is_baseline = arm in comparison_plan.BASELINES
    assert (plan.changes(arm).get("most", "") is None) == is_baseline, arm
