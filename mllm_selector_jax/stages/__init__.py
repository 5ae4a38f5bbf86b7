"""One module a command; each makes its artifact unless it is current."""

from mllm_selector_jax.stages.align import align
from mllm_selector_jax.stages.check import check
from mllm_selector_jax.stages.compare.stage import compare
from mllm_selector_jax.stages.evaluate import evaluate
from mllm_selector_jax.stages.explain import explain
from mllm_selector_jax.stages.export_selection import export_selection
from mllm_selector_jax.stages.measure import measure
from mllm_selector_jax.stages.plan.stage import plan
from mllm_selector_jax.stages.prepare import prepare
from mllm_selector_jax.stages.report.stage import report
from mllm_selector_jax.stages.run import run
from mllm_selector_jax.stages.score import score
from mllm_selector_jax.stages.seed import seed
from mllm_selector_jax.stages.select import select
from mllm_selector_jax.stages.tune import tune

COMMANDS = {
  "run": run,
  "check": check,
  "prepare": prepare,
  "plan": plan,
  "align": align,
  "seed": seed,
  "score": score,
  "select": select,
  "tune": tune,
  "evaluate": evaluate,
  "compare": compare,
  "report": report,
  "explain": explain,
  "measure": measure,
  "export-selection": export_selection,
}
