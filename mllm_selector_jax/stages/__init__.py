"""One module a command; each makes its artifact unless it is current."""

from mllm_selector_jax.pipeline.check_pool import check
from mllm_selector_jax.pipeline.evaluate_arm import evaluate
from mllm_selector_jax.pipeline.explain_rows import explain
from mllm_selector_jax.pipeline.export_arm import export_selection
from mllm_selector_jax.pipeline.measure_sets import measure
from mllm_selector_jax.pipeline.score_pool import score
from mllm_selector_jax.pipeline.select_arm import select
from mllm_selector_jax.pipeline.tune_arm import tune
from mllm_selector_jax.stages.align import align
from mllm_selector_jax.stages.compare import compare
from mllm_selector_jax.stages.plan import plan
from mllm_selector_jax.stages.prepare import prepare
from mllm_selector_jax.stages.report import report
from mllm_selector_jax.stages.run import run
from mllm_selector_jax.stages.seed import seed

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
