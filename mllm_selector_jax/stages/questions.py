"""The evaluation's questions, opened as the config says."""

from mllm_selector_jax import artifacts
from mllm_selector_jax.data import storage
from mllm_selector_jax.evaluation import tasks
from mllm_selector_jax.evaluation.tasks import Aside, Question
from mllm_selector_jax.stages import base
from mllm_selector_jax.stages.context import Run
from mllm_selector_jax.stages.draw import is_drawn
from mllm_selector_jax.types import InputError


def task_names(run: Run) -> str | list[str]:
  """The evaluation's tasks; those of the drawn pool where the config draws one."""
  if asks_drawn(run):
    return [str(run.workdir.demo.path / "evaluation" / "eval.jsonl")]
  given = run.cfg.evaluate.tasks
  return given if isinstance(given, str) else list(given or ())


def asks_drawn(run: Run) -> bool:
  """Whether the questions are those that are drawn with the pool."""
  return not run.cfg.evaluate.tasks and is_drawn(run.cfg)


def question_files(run: Run) -> list[str]:
  """The files that the questions are read from, there or not."""
  sources = tasks.parse_tasks(task_names(run))
  return [name for source in sources for name in tasks.list_files(source)]


def image_folders(run: Run) -> list[str]:
  """Where the questions' images are; a task may have a folder of its own."""
  if asks_drawn(run):
    return [str(run.workdir.demo.path / "evaluation" / "images")]
  own = base.split_paths(run.cfg.evaluate.images)
  return own or list(base.image_folders(run).folders)


def read_questions(run: Run) -> tuple[list[Question], list[Aside]]:
  """The questions that are asked, and the rows that are none."""
  cfg = run.cfg.evaluate
  return tasks.read_questions(
    task_names(run), cfg.rules, cfg.limit or None, run.cfg.rng_seed
  )


def questions_there(run: Run) -> list[Question]:
  """The questions, none where a file is not there (yet)."""
  names = question_files(run)
  there = names and all(storage.is_file(name) for name in names)
  return read_questions(run)[0] if there else []


def check_files(run: Run) -> None:
  """Refuses question files, and folders of their images, that are not there.

  Raises:
    InputError: one is not.
  """
  check_folders(run.cfg.evaluate.images, "evaluate.images")
  for name in question_files(run):
    if not storage.is_file(name):
      drawn = asks_drawn(run)
      raise InputError(
        f"{name}: the evaluation file is not there."
        + (" It is drawn with the pool: run `mllm-selector check`." if drawn else "")
      )


def check_folders(value: str | tuple | list | None, option: str) -> None:
  """Refuses an option that names a folder which is not there."""
  for name in base.split_paths(value):
    if not storage.is_folder(name):
      raise InputError(f"{option}={name}: there is no such folder.")


def hash_questions(run: Run) -> dict[str, str]:
  """Digests of the files that the questions follow from, and how they are read.

  Raises:
    InputError: one is not there.
  """
  check_files(run)
  digests = {}
  for source in tasks.parse_tasks(task_names(run)):
    found = [storage.hash_file(name) for name in tasks.list_files(source)]
    one = found[0] if len(found) == 1 else artifacts.hash_json(found)
    digests[f"{source.name or 'questions'} {len(digests)}"] = one
  return digests
