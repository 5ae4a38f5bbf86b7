"""Opens the evaluation questions that the config names."""

from mllm_selector_jax import storage
from mllm_selector_jax.evaluation import tasks
from mllm_selector_jax.evaluation.tasks import Aside, Question
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.drawn_demo import is_drawn
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError


def task_names(run: Run) -> str | list[str]:
  """Return the tasks of the evaluation; by default those of a drawn pool."""
  if asks_drawn(run):
    return [str(run.workdir.demo.path / "evaluation" / "eval.jsonl")]
  configured = run.cfg.evaluate.tasks
  return configured if isinstance(configured, str) else list(configured or ())


def asks_drawn(run: Run) -> bool:
  """Say whether the questions are those that are drawn with the demo pool."""
  return not run.cfg.evaluate.tasks and is_drawn(run.cfg)


def question_files(run: Run) -> list[str]:
  """Return the files that the questions are read from, whether they exist or not."""
  sources = tasks.parse_tasks(task_names(run))
  return [name for source in sources for name in tasks.list_files(source)]


def image_folders(run: Run) -> list[str]:
  """Return the folders of the questions' images, for tasks without their own."""
  if asks_drawn(run):
    return [str(run.workdir.demo.path / "evaluation" / "images")]
  folders = base_model.split_paths(run.cfg.evaluate.images)
  return folders or list(base_model.image_folders(run).folders)


def read_questions(run: Run) -> tuple[list[Question], list[Aside]]:
  """Read the questions, and the rows that are not valid questions."""
  cfg = run.cfg.evaluate
  return tasks.read_questions(
    task_names(run), cfg.rules, cfg.limit or None, run.cfg.rng_seed
  )


def read_existing_questions(run: Run) -> list[Question]:
  """Read the questions; return none if a file does not exist yet."""
  names = question_files(run)
  complete = names and all(storage.is_file(name) for name in names)
  return read_questions(run)[0] if complete else []


def check_files(run: Run) -> None:
  """Check that the question files and the folders of their images exist.

  Raises:
    InputError: A file or a folder does not exist.
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
  """Raise an InputError if an option names a folder that does not exist."""
  for name in base_model.split_paths(value):
    if not storage.is_folder(name):
      raise InputError(f"{option}={name}: there is no such folder.")


def hash_questions(run: Run) -> dict[str, str]:
  """Return the digests of the question files, one for each task.

  Raises:
    InputError: A file does not exist.
  """
  check_files(run)
  digests = {}
  for source in tasks.parse_tasks(task_names(run)):
    hashes = [storage.hash_file(name) for name in tasks.list_files(source)]
    digest = hashes[0] if len(hashes) == 1 else artifacts.hash_json(hashes)
    digests[f"{source.name or 'questions'} {len(digests)}"] = digest
  return digests
