"""export-selection: an arm's kept rows in the forms that trainers read."""

from mllm_selector_jax.pipeline import exports
from mllm_selector_jax.pipeline.arms import at_arm
from mllm_selector_jax.pipeline.export_arm import choose_arm, choose_forms, export_arm
from mllm_selector_jax.runs.context import Run


def export_selection(run: Run) -> None:
  """Makes `arms/<name>/exports/<format>/`: the kept rows as trainers read them."""
  arm, wanted = choose_arm(run), choose_forms(run.cfg.export_selection.formats)
  place, selected = at_arm(run, arm)
  for form in wanted:
    export_arm(place, arm, form, selected)
  exports.warn_stale(run, arm)
