"""The files of the questions that a search compares settings on."""

from pathlib import Path

from mllm_selector_jax import storage
from mllm_selector_jax.inputs.held_out import OPTION, read_files
from mllm_selector_jax.inputs.questions import check_folders, question_files
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError


def check_files(run: Run) -> None:
  """Refuses development questions that are not there or that are the test's."""
  test = {
    storage.hash_file(Path(name)): name
    for name in question_files(run)
    if Path(name).is_file()
  }
  check_folders(run.cfg.select.search.images, "select.search.images")
  for name in read_files(run.cfg):
    if not Path(name).is_file():
      raise InputError(f"{OPTION}={name}: there is no such file.")
    if same := test.get(storage.hash_file(Path(name))):
      raise InputError(
        f"{OPTION}={name} is the same file as {same}, on which the result is measured:"
        " settings chosen there would make it look better than it is. Give other"
        ' questions, or a share of the pool such as "10%".'
      )
