"""Finds exports of an arm that were made from an older selection."""

from mllm_selector_jax.data.pool import pool_export
from mllm_selector_jax.pipeline.arms import MAIN
from mllm_selector_jax.runs import arm_pointers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.workdir import Workdir

WEIGHTS = "weights"
CARD = "card"
FORMATS = (*pool_export.EXPORTS, WEIGHTS, CARD)
BY_PATH = ("llava", "llama_factory", "ms_swift")  # name images by path


def list_stale(work: Workdir, arm: str) -> list[str]:
  """Return the formats whose export was made from an older selection of the arm."""
  selected, stale = work.selection(arm).provenance(), []
  for form in FORMATS:
    artifact = work.export(arm, form)
    exported = artifact.provenance()
    if not artifact.path.is_dir():
      continue
    # Older versions wrote one provenance for all formats; such an export is stale.
    if (
      not (selected and exported)
      or exported["inputs"]["selection"] != selected["digest"]
    ):
      stale.append(form)
  return stale


def describe_stale(work: Workdir, arm: str) -> str:
  """Describe the exports made from an older selection; "" if there are none."""
  stale = list_stale(work, arm)
  if not stale:
    return ""
  folder = work.export(arm, stale[0]).path.parent
  flag = "" if arm in (MAIN, work.resolve(MAIN)) else f" --arm={arm}"
  return (
    f"{', '.join(stale)} in {folder} {'were' if len(stale) > 1 else 'was'} made from an"
    " older selection: run `mllm-selector export-selection"
    f"{flag} --config.export_selection.formats={','.join(stale)}` again."
  )


def list_warnings(work: Workdir) -> list[str]:
  """Describe the stale exports of all arms, one text for each arm that has any."""
  texts = (describe_stale(work, arm) for arm in arm_pointers.list_arms(work.arms))
  return [text for text in texts if text]


def warn_stale(run: Run, arm: str) -> None:
  """Print a warning if exports of an arm were made from an older selection."""
  if text := describe_stale(run.workdir, arm):
    run.say(f"Warning: {text}")
