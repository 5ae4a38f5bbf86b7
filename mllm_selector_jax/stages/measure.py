"""measure: compares the diversity of lists of rows with random rows and the pool."""

from pathlib import Path

from mllm_selector_jax.pipeline.measure_lines import format_lines
from mllm_selector_jax.pipeline.measure_sets import measure_files
from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError


def measure(run: Run) -> None:
  """Says how diverse the rows of --ids=FILE[,FILE] are; --out=FILE also writes JSON."""
  run.begin("measure")
  if not run.lists:
    raise InputError(
      "measure needs --ids=FILE, or several files separated by commas: text with one id"
      " per line, JSON or Parquet, such as arms/main/selection/selected.json."
    )
  if run.out and not Path(run.out).absolute().parent.is_dir():
    raise InputError(f"--out={run.out}: there is no such folder.")
  if peers.is_first_process():
    measured = measure_files(run, run.lists)
    for line in format_lines(measured):
      run.say(line)
    if run.out:
      artifacts.write_json(Path(run.out), measured)
      run.say(f"measure: written to {run.out}")
