"""The whole command, without a checked pool."""

import json

import pytest

from mllm_selector_jax import main
from mllm_selector_jax.planning import topology
from mllm_selector_jax.stages import plan
from tests.stages.plan.test_described_pool import summarise


def run_plan(tmp_path, *flags):
  """The status of `plan` for the demo's base, and what it says."""
  work = tmp_path / "work"
  flags = [f"--config.{flag}" for flag in flags]
  command = ["mllm-selector", "plan", "--config=demo", f"--workdir={work}", *flags]
  status = main.run(command)
  return status, (work / "log.txt").read_text()


def test_a_few_figures_are_enough(tmp_path, monkeypatch):
  monkeypatch.setattr(plan, "LONG", 0.0)  # as of a CPU that would take weeks
  status, said = run_plan(tmp_path, "plan.rows=300", "plan.tokens=70")
  assert status == 0
  for words in (
    "The pool: 300 rows, 70 tokens and 1 images a row in the mean",
    "seed     300 rows x 1 epochs",
    "not on this machine",
    "--config.plan.topology=h100-8",
    "checkpoints",
    "are free",
  ):
    assert words in said, words


def test_a_summary_and_a_price_give_money_for_the_cheapest_that_fits(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(topology, "_has_gpu_compiler", lambda: False)
  path = tmp_path / "pool_summary.json"
  path.write_text(json.dumps(summarise()))
  status, said = run_plan(
    tmp_path,
    f"plan.summary={path}",
    "plan.topology=h100-2,rtx4090-2",
    "plan.price=h100=2.5,rtx4090=0.4",
    "model.dtype=float32",
  )
  assert status == 0
  assert "The pool: 1,000 rows, 280 tokens and 0.8 images a row" in said
  assert "rtx4090-2: 2 x NVIDIA GeForce RTX 4090" in said and "h100-2:" not in said
  assert "executed FLOPs at 0.25 to 0.4 of the peak" in said and "and cost" in said
  assert "It fits rtx4090-2 (tune " in said


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ([], "No pool has been checked in"),
    (["plan.rows=5", "plan.summary=a.json"], "both describe the pool"),
    (["plan.tokens=5"], "give plan.rows too"),
    (["plan.summary=nowhere.json"], "nowhere.json cannot be read as JSON"),
    (["plan.rows=9", "plan.tokens=5000"], "plan.tokens is 5000"),
  ],
)
def test_what_is_missing_or_cannot_be_is_refused_by_name(tmp_path, flags, words):
  status, said = run_plan(tmp_path, *flags)
  assert status == 2 and words in said
