"""Finds evaluation questions that are also in the pool, and refuses such a pool."""

import collections
import dataclasses
import json

import numpy as np

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.evaluation import pool_overlap
from mllm_selector_jax.evaluation.asked_images import Pictures
from mllm_selector_jax.evaluation.question import Question, QuestionImage
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.questions import (
  hash_questions,
  image_folders,
  read_questions,
)
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError, RowError

EXAMPLES = 3  # leaks that the message shows


def check_leakage(run: Run) -> None:
  """Make `leakage/leakage.json`, a list of the evaluation questions in the pool.

  Raises:
    InputError: A leak is of a kind in `pool_overlap.REFUSED`, and
      `evaluate.allow_leakage` is off.
  """
  cfg = run.cfg.evaluate
  config = {name: cfg[name] for name in ("rules", "limit")}
  inputs = hash_questions(run) | {"pool": run.workdir.pool.digest()}
  recipe = run.recipe("evaluate", config, inputs)

  def build(folder):
    questions, _ = read_questions(run)
    leaks = _find_leaks(run, questions)
    report = {
      "questions": len(questions),
      "leaked": len(leaks),
      "kinds": collections.Counter(leak.kind for leak in leaks),
      "tasks": collections.Counter(leak.task for leak in leaks),
      "leaks": [dataclasses.asdict(leak) for leak in leaks],
    }
    artifacts.write_json(folder / "leakage.json", report)

  run.make(run.workdir.leakage, recipe, build)
  report = json.loads((run.workdir.leakage.path / "leakage.json").read_text())
  if not report["leaked"]:
    text = f"evaluate: none of {report['questions']:,} questions is in the pool."
    run.say(text, once=True)
    return
  text = _describe(report)
  if any(report["kinds"].get(kind) for kind in pool_overlap.REFUSED) and (
    not cfg.allow_leakage
  ):
    raise InputError(
      f"{text}\nTake them out of the pool or the evaluation, or allow it by"
      " --config.evaluate.allow_leakage=True. All of them are listed in"
      f" {run.workdir.leakage.path / 'leakage.json'}."
    )
  run.say(f"Warning: {text}", once=True)


def _describe(report: dict) -> str:
  kinds = "; ".join(
    f"{report['kinds'][kind]:,} are {meaning}"
    for kind, meaning in pool_overlap.KINDS.items()
    if report["kinds"].get(kind)
  )
  tasks = ", ".join(f"{task} {count:,}" for task, count in report["tasks"].items())
  lines = [
    f"Leakage: {report['leaked']:,} of {report['questions']:,} evaluation questions are"
    f" also in the pool ({kinds}). By task: {tasks}."
  ]
  order = list(pool_overlap.KINDS)
  leaks = sorted(report["leaks"], key=lambda leak: order.index(leak["kind"]))
  for leak in leaks[:EXAMPLES]:
    lines.append(
      f"  {leak['where']}: {leak['question'][:80]!r} is row {leak['row']:,} of the"
      f" pool: {leak['asked'][:80]!r}"
    )
  return "\n".join(lines)


def _find_leaks(run: Run, questions: list[Question]) -> list[pool_overlap.Leak]:
  images = base_model.read_encoder(run).images
  pictures = Pictures(image_folders(run), images, run.cfg.pool.max_pixels)
  # The pool may hold the image alone in its row or beside others, and some bases
  # prepare the two differently.
  counts = (1, 2) if images.is_several(2) else (1,)
  keyed: list[tuple[Question, list[list[str]]]] = []
  known: dict[object, list[str]] = {}

  def find_hashes(image: QuestionImage) -> list[str]:
    if image.key not in known:
      try:
        known[image.key] = pictures.hash_image(image, counts)
      except RowError:
        known[image.key] = []
    return known[image.key]

  with run.progress("images of the questions", "question") as update:
    for count, question in enumerate(questions, 1):
      hashes = [find_hashes(image) for image in question.images]
      if all(hashes):
        keyed.append((question, hashes))
      update(count, len(questions))
  index = pool_overlap.Index(keyed)
  pool = base_model.open_pool(run)
  rows = np.flatnonzero(pool.ok)
  rows = rows[
    [
      any(pixels in index.pixels for pixels in pool.pixels[row] or (None,))
      for row in rows
    ]
  ]

  def read(update):
    for count, row in enumerate(rows, 1):
      turns = record_schemas.read_content(pool.record(int(row))).conversations
      asked = [turn["value"] for turn in turns if turn.get("from") == "human"]
      yield int(row), pool.pixels[row], asked
      update(count, len(rows))

  with run.progress("pool rows of the same images", "row") as update:
    return pool_overlap.find_leaks(index, read(update))
