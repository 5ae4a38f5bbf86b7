"""Writes the evaluation set of the demo, which is balanced and disjoint from pools."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mllm_selector_jax.demo.drawing import draw
from mllm_selector_jax.demo.drawn_pool import Progress, write_image
from mllm_selector_jax.demo.pool_mixture import TEXT_SHARE, to_prompt
from mllm_selector_jax.demo.question_families import TASKS, Turn
from mllm_selector_jax.demo.scenes import Scene, held_out, make_on_side
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.types import InputError

_EVALUATION_STREAM = 2
_PATIENCE = 500  # failed tries after which questions without an image may repeat


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
  """The options of the evaluation set.

  Attributes:
    questions: the number of questions of each task, evenly over its answers.
    seed: seed of all draws.
    tasks: the tasks; empty for all.
  """

  questions: int = 300
  seed: int = 0
  tasks: tuple[str, ...] = ()

  def __post_init__(self):
    if self.questions < 1:
      raise InputError(f"questions is {self.questions}; it must be at least 1.")
    if self.seed < 0:
      raise InputError(f"seed is {self.seed}; give a number from 0 upwards.")
    for task in self.tasks:
      if task not in TASKS:
        raise InputError(f"there is no task {task!r}; known are {', '.join(TASKS)}.")


def draw_evaluation(
  folder: Path, options: EvaluationOptions, progress: Progress | None = None
) -> dict[str, int]:
  """Writes `eval.jsonl` and `images/` into a folder.

  Each line has the fields id, task, image (null for a question without one), question
  (with the prompt for a short answer, without an image mark), answers and metric.

  Returns:
    The number of questions of each task.
  """
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  tasks = options.tasks or tuple(TASKS)
  lines: list[dict[str, Any]] = []
  for task in tasks:
    for number, (scene, turn) in enumerate(ask_evenly(task, options)):
      image = None
      if scene is not None:
        image = f"{scene.source}/{len(lines):05d}.png"
        write_image(folder / "images" / image, draw(scene))
      lines.append(
        {
          "id": f"{task}-{number:04d}",
          "task": task,
          "image": image,
          "question": to_prompt(turn.question),
          "answers": [turn.answer],
          "metric": "exact_match",
        }
      )
    if progress is not None:
      progress(len(lines), len(tasks) * options.questions)
  text = "".join(json.dumps(line) + "\n" for line in lines)
  artifacts.write_text(folder / "eval.jsonl", text)
  return {task: options.questions for task in tasks}


def ask_evenly(
  task: str, options: EvaluationOptions
) -> Iterator[tuple[Scene | None, Turn]]:
  """Yields different questions of a task, with equal counts of answers up to one."""
  family = TASKS[task]
  number = tuple(TASKS).index(task)
  rng = np.random.default_rng([options.seed, _EVALUATION_STREAM, number])
  count, remainder = divmod(options.questions, len(family.answers))
  order = rng.permutation(len(family.answers)).tolist()
  missing = {
    family.answers[place]: count + (rank < remainder)
    for rank, place in enumerate(order)
  }
  asked: set[tuple[Scene | None, str]] = set()
  tries = 0
  while any(missing.values()):
    tries += 1
    scene = None
    if family.make_scene is not None:
      scene = make_on_side(lambda: family.make_scene(rng), held=True)
    turn = family.ask(rng, scene)
    if turn is None or not missing[turn.answer]:
      continue
    if scene is None:
      if not held_out(turn.question, TEXT_SHARE):
        continue
      # The number of such questions is limited, so a very large set repeats some.
      if tries > _PATIENCE:
        asked.clear()
    if (scene, turn.question) in asked:
      continue
    asked.add((scene, turn.question))
    missing[turn.answer] -= 1
    tries = 0
    yield scene, turn
