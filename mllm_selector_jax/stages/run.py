"""run: runs the whole pipeline; a stage is skipped if nothing that it reads changed."""

import json
import time

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.questions import task_names
from mllm_selector_jax.pipeline.arms import arms
from mllm_selector_jax.pipeline.candidates import check_names, check_pool
from mllm_selector_jax.pipeline.check_pool import make_pool
from mllm_selector_jax.pipeline.exports import list_warnings
from mllm_selector_jax.pipeline.leakage import check_leakage
from mllm_selector_jax.pipeline.score_pool import make_scores
from mllm_selector_jax.pipeline.scored_models import needs_seed
from mllm_selector_jax.pipeline.search.search_space import check_search
from mllm_selector_jax.pipeline.tuning_recipe import check_adapters
from mllm_selector_jax.planning.hours import duration
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.times import keep_times
from mllm_selector_jax.stages.evaluate import evaluate
from mllm_selector_jax.stages.plan import plan
from mllm_selector_jax.stages.report import report
from mllm_selector_jax.stages.seed import seed
from mllm_selector_jax.stages.select import select
from mllm_selector_jax.stages.tune import tune


def run(current: Run) -> None:
  """Runs check, seed, score, select, tune, evaluate and report, and says a summary."""
  start = time.monotonic()
  check_adapters(base_model.check_model(current), current.cfg)
  check_names(current)
  check_search(current)
  make_pool(current)
  check_pool(current)
  if task_names(current):
    check_leakage(current)
  if any(current.workdir.tuned(arm).provenance() is None for arm in arms(current)):
    plan(current)
  if needs_seed(current):
    seed(current)
  make_scores(current)
  select(current)
  tune(current)
  if task_names(current):
    evaluate(current)
  else:
    current.say("evaluate: skipped, evaluate.tasks names no question file.")
  for number in range(2, current.cfg.select.rounds + 1):
    later = _at_round(current, number)
    later.say(f"round {number}: the tuned model of the one before scores the pool")
    make_scores(later)
    select(later)
    tune(later)
    if task_names(later):
      evaluate(later)
  keep_times(current, current.workdir.logs)
  report(current)
  current.say(_summary(current, time.monotonic() - start))


def _at_round(current: Run, number: int) -> Run:
  """Returns the run of a later round, which has only a main arm and its own folders."""
  return current.at(
    current.workdir.at_round(number),
    {"score.model": None, "score.table": None, "select.control": False},
  )


def _summary(current: Run, seconds: float) -> str:
  work = current.workdir
  pool = json.loads((work.path / "pool_summary.json").read_text())
  chosen = json.loads((work.selection("main").path / "summary.json").read_text())
  lines = [
    "",
    f"Done in {duration(seconds)}.",
    f"  pool       {pool['rows']:,} rows = {pool['ok']:,} usable"
    f" + {pool['rows'] - pool['ok']:,} set aside",
    f"  selection  {chosen['kept']:,} rows by {chosen['strategy']},"
    f" budget {chosen['budget']}",
  ]
  if verdict := chosen.get("verdict"):
    lines.append(f"  verdict    {verdict['statement']}")
  for arm in arms(current):
    path = work.evaluation(arm).path / "results.json"
    if path.exists():
      macro = json.loads(path.read_text())["macro"]
      lines.append(
        f"  {arm:10} macro accuracy {macro['value']:.3f}"
        f" [{macro['low']:.3f}, {macro['high']:.3f}]"
      )
  for number in range(2, current.cfg.select.rounds + 1):
    path = work.at_round(number).evaluation("main").path / "results.json"
    if path.exists():
      value = json.loads(path.read_text())["macro"]["value"]
      lines.append(f"  round {number:<4} macro accuracy {value:.3f}")
  lines += [f"  exports    {text}" for text in list_warnings(work)]
  lines += [
    "Where things are:",
    f"  {work.path / 'report.html'}  (open it first)",
    f"  {work.selection('main').path / 'selected.json'}  (the kept records)",
    f"  {work.tuned('main').path / 'hf'}  (the tuned model)",
    "Next: another budget makes an arm beside this one, from the same scores, for"
    " example --config.select.budget=10%. `mllm-selector arms` lists all.",
  ]
  return "\n".join(lines)
