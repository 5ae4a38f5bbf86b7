"""Leakage: evaluation questions that also stand in the pool are named and refused."""

import collections
import dataclasses
import hashlib
import json

import numpy as np

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.evaluation import pool_overlap
from mllm_selector_jax.evaluation.asking import Pictures
from mllm_selector_jax.evaluation.question import Question
from mllm_selector_jax.inputs import base_model
from mllm_selector_jax.inputs.questions import (
  hash_questions,
  image_folders,
  read_questions,
)
from mllm_selector_jax.runs import artifacts
from mllm_selector_jax.runs.context import Run
from mllm_selector_jax.types import InputError, RowError

EXAMPLES = 3  # that the message shows


def check_leakage(run: Run) -> None:
  """Makes `leakage/leakage.json`, the evaluation's questions that the pool holds.

  Raises:
    InputError: there are some of `pool_overlap.REFUSED`, and evaluate.allow_leakage is
      off.
  """
  cfg = run.cfg.evaluate
  config = {name: cfg[name] for name in ("rules", "limit")}
  inputs = hash_questions(run) | {"pool": run.workdir.pool.digest()}
  recipe = run.recipe("evaluate", config, inputs)

  def build(folder):
    questions, _ = read_questions(run)
    leaks = _find(run, questions)
    found = {
      "questions": len(questions),
      "leaked": len(leaks),
      "kinds": collections.Counter(leak.kind for leak in leaks),
      "tasks": collections.Counter(leak.task for leak in leaks),
      "leaks": [dataclasses.asdict(leak) for leak in leaks],
    }
    artifacts.write_json(folder / "leakage.json", found)

  run.make(run.workdir.leakage, recipe, build)
  found = json.loads((run.workdir.leakage.path / "leakage.json").read_text())
  if not found["leaked"]:
    text = f"evaluate: none of {found['questions']:,} questions stands in the pool."
    run.say(text, once=True)
    return
  text = _describe(found)
  if any(found["kinds"].get(kind) for kind in pool_overlap.REFUSED) and (
    not cfg.allow_leakage
  ):
    raise InputError(
      f"{text}\nTake them out of the pool or the evaluation, or allow it by"
      " --config.evaluate.allow_leakage=True; all are in"
      f" {run.workdir.leakage.path / 'leakage.json'}."
    )
  run.say(f"Warning: {text}", once=True)


def _describe(found: dict) -> str:
  kinds = "; ".join(
    f"{found['kinds'][kind]:,} are {meaning}"
    for kind, meaning in pool_overlap.KINDS.items()
    if found["kinds"].get(kind)
  )
  tasks = ", ".join(f"{task} {count:,}" for task, count in found["tasks"].items())
  lines = [
    f"Leakage: {found['leaked']:,} of {found['questions']:,} evaluation questions also"
    f" stand in the pool ({kinds}). By task: {tasks}."
  ]
  order = list(pool_overlap.KINDS)
  leaks = sorted(found["leaks"], key=lambda leak: order.index(leak["kind"]))
  for leak in leaks[:EXAMPLES]:
    lines.append(
      f"  {leak['where']}: {leak['question'][:80]!r} is row {leak['row']:,} of the"
      f" pool: {leak['asked'][:80]!r}"
    )
  return "\n".join(lines)


def _find(run: Run, questions: list[Question]) -> list[pool_overlap.Leak]:
  images = base_model.read_encoder(run).images
  pictures = Pictures(image_folders(run), images, run.cfg.pool.max_pixels)
  keyed = []
  known: dict[object, str | None] = {}
  with run.progress("images of the questions", "question") as update:
    for count, question in enumerate(questions, 1):
      key = question.place or (question.folder, question.image)
      if question.image is not None and key not in known:
        try:
          known[key] = _hash_pixels(pictures.read(question))
        except RowError:
          known[key] = None
      if question.image is None or known[key] is not None:
        keyed.append((question, known.get(key)))
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

  def read():
    for row in rows:
      turns = record_schemas.read_content(pool.record(int(row))).conversations
      asked = [turn["value"] for turn in turns if turn.get("from") == "human"]
      # A row of several images is compared by each that a question has.
      for pixels in dict.fromkeys(pool.pixels[row] or (None,)):
        if pixels in index.pixels:
          yield int(row), pixels, asked

  with run.progress("pool rows of the same images", "row") as update:
    return pool_overlap.find_leaks(
      index, read(), lambda count: update(count, len(rows))
    )


def _hash_pixels(pixels: np.ndarray) -> str:
  """As `pool.parquet` has it."""
  data = np.ascontiguousarray(pixels)
  return hashlib.blake2b(data, digest_size=16).hexdigest()
