"""Checks the question files on which a search compares settings."""

from pathlib import Path

from mllm_selector_jax import storage
from mllm_selector_jax.inputs.held_out import OPTION, read_files
from mllm_selector_jax.inputs.questions import check_folders, question_files
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError


def check_files(run: Run) -> None:
  """Check the files of development questions.

  Raises:
    InputError: A file is missing, or is also a file of the evaluation.
  """
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
        f"{OPTION}={name} is the same file as {same}, which the evaluation uses:"
        " settings chosen on it would make the result look better than it is. Give"
        ' other questions, or a share of the pool such as "10%".'
      )
