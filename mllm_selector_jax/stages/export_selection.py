"""export-selection: writes an arm's kept rows in the formats that trainers read."""

from mllm_selector_jax.pipeline import exports
from mllm_selector_jax.pipeline.arms import at_arm
from mllm_selector_jax.pipeline.export_arm import choose_arm, choose_forms, export_arm
from mllm_selector_jax.runs.context import Run


def export_selection(run: Run) -> None:
  """Makes `arms/<name>/exports/<format>/` for each configured format."""
  arm, forms = choose_arm(run), choose_forms(run.cfg.export_selection.formats)
  arm_run, selected = at_arm(run, arm)
  for form in forms:
    export_arm(arm_run, arm, form, selected)
  exports.warn_stale(run, arm)
