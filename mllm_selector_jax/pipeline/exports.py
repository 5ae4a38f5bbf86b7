"""Which formats an arm was exported in, and which exports are older than it."""

from mllm_selector_jax.data.pool import pool_export
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.runs.workdir import Workdir

WEIGHTS = "weights"
CARD = "card"
FORMATS = (*pool_export.EXPORTS, WEIGHTS, CARD)
BY_PATH = ("llava", "llama_factory", "ms_swift")  # that name images as files


def list_stale(work: Workdir, arm: str) -> list[str]:
  """Formats whose export was made from another selection than the arm has now."""
  made, stale = work.selection(arm).provenance(), []
  for form in FORMATS:
    artifact = work.export(arm, form)
    found = artifact.provenance()
    if not artifact.path.is_dir():
      continue
    # Without a provenance it is of a version that kept one for all formats.
    if not (made and found) or found["inputs"]["selection"] != made["digest"]:
      stale.append(form)
  return stale


def describe_stale(work: Workdir, arm: str) -> str:
  """What to say of exports that are older than their selection; "" where none is."""
  stale = list_stale(work, arm)
  if not stale:
    return ""
  folder = work.export(arm, stale[0]).path.parent
  given = "" if arm == "main" else f" --arm={arm}"
  return (
    f"{', '.join(stale)} in {folder} {'are' if len(stale) > 1 else 'is'} not of the"
    " selection as it is now: run `mllm-selector export-selection"
    f"{given} --config.export_selection.formats={','.join(stale)}` again."
  )


def tell_stale(run: Run, arm: str) -> None:
  """Names the exports of an arm that are older than its selection."""
  if text := describe_stale(run.workdir, arm):
    run.say(f"Warning: {text}")
