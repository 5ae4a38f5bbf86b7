"""run: the whole pipeline, each stage skipped where nothing changed."""

import json
import time

from mllm_selector_jax.stages import base
from mllm_selector_jax.stages.check import check
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.stages.evaluate import evaluate, question_files
from mllm_selector_jax.stages.plan.estimate import duration
from mllm_selector_jax.stages.plan.stage import plan
from mllm_selector_jax.stages.report.stage import report
from mllm_selector_jax.stages.score import needs_seed, score
from mllm_selector_jax.stages.seed import seed
from mllm_selector_jax.stages.select import arms, select
from mllm_selector_jax.stages.tune import tune


def run(current: Run) -> None:
  """check, seed, score, select, tune, evaluate and report, then a summary."""
  start = time.monotonic()
  base.check_model(current)
  check(current)
  if any(current.workdir.tuned(arm).provenance() is None for arm in arms(current)):
    plan(current)
  if needs_seed(current):
    seed(current)
  score(current)
  select(current)
  tune(current)
  if question_files(current):
    evaluate(current)
  else:
    current.say("evaluate: skipped, evaluate.tasks names no question file.")
  report(current)
  current.say(_summary(current, time.monotonic() - start))


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
  for arm in arms(current):
    path = work.evaluation(arm).path / "results.json"
    if path.exists():
      macro = json.loads(path.read_text())["macro"]
      lines.append(
        f"  {arm:10} macro accuracy {macro['value']:.3f}"
        f" [{macro['low']:.3f}, {macro['high']:.3f}]"
      )
  lines += [
    "Where things are:",
    f"  {work.path / 'report.html'}  (open it first)",
    f"  {work.selection('main').path / 'selected.json'}  (the kept records)",
    f"  {work.tuned('main').path / 'hf'}  (the tuned model)",
    "Next: another budget redoes only what follows it, for example"
    " --config.select.budget=10%.",
  ]
  return "\n".join(lines)
