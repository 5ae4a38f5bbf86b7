"""report: writes `report.html` and `explorer.html` about what the workdir holds."""

from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.pages import build_explorer, build_report
from mllm_selector_jax.pipeline import exports
from mllm_selector_jax.pipeline.measure_sets import measure_main
from mllm_selector_jax.runs import arm_pointers, artifacts
from mllm_selector_jax.runs.context import Run


def report(run: Run) -> None:
  """Makes both pages from the artifacts that the other stages have made."""
  work = run.workdir
  measure_main(run)
  inputs = {"pool": work.pool.digest()}
  sources = {"seed": work.seed, "scores": work.scores, "measures": work.measures}
  sources["search"] = work.search
  for number in range(2, run.cfg.select.rounds + 1):
    sources[f"round {number}"] = work.at_round(number).evaluation("main")
  for arm in arm_pointers.list_arms(work.arms):
    sources |= {
      f"{arm} selection": work.selection(arm),
      f"{arm} tuned": work.tuned(arm),
      f"{arm} evaluation": work.evaluation(arm),
    }
  for name, artifact in sources.items():
    if (provenance := artifact.provenance()) is not None:
      inputs[name] = provenance["digest"]
  pointers = arm_pointers.list_pointers(work.arms)
  inputs |= {f"arm {name}": artifacts.hash_json(arm) for name, arm in pointers.items()}
  if stale := exports.list_warnings(work):
    inputs["stale exports"] = artifacts.hash_json(stale)
  recipe = run.recipe("report", run.cfg.report, inputs)

  def build(folder):
    images, title = base_model.image_folders(run), run.cfg.report.title
    artifacts.write_text(folder / "report.html", build_report(work.path, images, title))
    artifacts.write_text(
      folder / "explorer.html", build_explorer(work.path, images, title)
    )

  run.make(work.report, recipe, build)
