"""Asks a model the questions of an evaluation, and marks and summarises its answers."""

import collections
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import UInt8

from mllm_selector_jax import sharding
from mllm_selector_jax.data.pool.row_reading import check_count
from mllm_selector_jax.data.tokens.conversation import Encoder
from mllm_selector_jax.evaluation import (
  generation,
  intervals,
  metrics,
  totals,
)
from mllm_selector_jax.evaluation.asked_images import Pictures
from mllm_selector_jax.evaluation.question import Aside, Question
from mllm_selector_jax.evaluation.totals import Marked
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.runs import peers, row_shares
from mllm_selector_jax.types import InputError, Params, RowError, Sample

MAX_PIXELS = 64_000_000  # the default maximum of pixels in an image


def summarise(marked: Iterable[Marked], aside: Sequence[Aside] = ()) -> dict[str, Any]:
  """Computes mean scores with 95 % intervals by task, over tasks and over questions.

  Args:
    marked: questions with their answers and scores.
    aside: questions that were not asked.

  Returns:
    The content of results.json: "tasks" (a dict for each task, whose "totals" are the
    figures that the benchmark itself reports, see `totals`), "macro" (the mean over
    tasks), "overall" (the mean over questions) and "aside" (a count, counts by reason,
    and every question). The "count" of a task is that of its questions; for MMBench,
    that of its groups, each of which is right or wrong as a whole.

  Raises:
    InputError: no question was asked.
  """
  by_task: dict[str, list[Marked]] = {}
  for item in marked:
    by_task.setdefault(item.question.task, []).append(item)
  reasons = collections.Counter(item.reason for item in aside)
  if not by_task:
    counts = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
    first = f" First: {aside[0].detail}." if aside else ""
    raise InputError(
      f"No evaluation question is left to ask; set aside: {counts or 'none'}.{first}"
      " Check the evaluation file and the image folder."
    )
  scores = {task: totals.group_scores(items) for task, items in by_task.items()}

  def entry(values: list[float], **more) -> dict[str, Any]:
    correct = sum(values)
    exact = int(correct) if correct == int(correct) else correct
    counts = {"count": len(values), "correct": exact}
    return more | counts | intervals.score_interval(values)._asdict()

  tasks = {}
  for task, items in sorted(by_task.items()):
    names = ", ".join(sorted({item.question.metric for item in items}))
    tasks[task] = entry(scores[task], metric=names)
    if task_totals := totals.make_totals(items):
      tasks[task]["totals"] = task_totals
  return {
    "tasks": tasks,
    "macro": intervals.macro_interval(scores)._asdict(),
    "overall": entry([score for values in scores.values() for score in values]),
    "aside": {
      "count": len(aside),
      "reasons": dict(sorted(reasons.items())),
      "questions": [item._asdict() for item in aside],
    },
  }


def _answer(
  order: Sequence[int],
  prompts: dict[int, Sample],
  read: Callable[[int], tuple[UInt8[np.ndarray, "_ S S 3"], ...]],
  config: MllmConfig,
  params: Params,
  encoder: Encoder,
  batch_size: int,
  max_new_tokens: int,
  mesh: Mesh | None,
) -> Iterator[list[tuple[int, str]]]:
  """Generates the answers to all questions, batch by batch.

  Each process reads the images of its share of a batch's rows.

  Args:
    order: indices of the questions, in the order in which they are asked.
    prompts: the tokens of each prompt, by index.
    read: returns the tiles of each image of a question.
    config, params, encoder, batch_size, max_new_tokens, mesh: as for `evaluate_model`.

  Yields:
    For each batch, the indices of its questions with the decoded answers.
  """
  tokenizer = encoder.tokenizer
  # Without an end token, answers have the full length, since -1 is never generated.
  eos = encoder.answers.ends or [-1]
  vocabulary = min(len(tokenizer), config.decoder.vocab)
  generate = generation.make_generate(config, max_new_tokens, eos, vocabulary)
  ways = sharding.row_ways(mesh) if mesh else 1
  rows = -(-batch_size // ways) * ways
  share, shares = row_shares.row_share(mesh) if mesh else (0, 1)
  share_rows = rows // shares

  def finish(batch: Sequence[int], ids) -> list[tuple[int, str]]:
    answers = zip(batch, np.asarray(ids), strict=False)
    return [(place, encoder.answers.read(row)) for place, row in answers]

  running = None
  for start in range(0, len(order), rows):
    batch = order[start : start + rows]
    local = batch[share * share_rows : (share + 1) * share_rows]
    inputs = generation.make_prompts(
      [prompts[place] for place in local],
      [read(place) for place in local],
      config,
      share_rows,
      generation.measure_prompts([prompts[place] for place in batch]),
    )
    # The device answers this batch while the host reads the next one.
    ids = generate(params, *(sharding.put_rows(inputs, mesh) if mesh else inputs))
    if running:
      yield finish(*running)
    running = batch, ids
  if running:
    yield finish(*running)


def evaluate_model(
  config: MllmConfig,
  params: Params,
  encoder: Encoder,
  image_folder: str | Sequence[str] | None,
  questions: Sequence[Question],
  batch_size: int = 64,
  max_new_tokens: int = 16,
  mesh: Mesh | None = None,
  progress: Callable[[int, int], None] | None = None,
  aside: Sequence[Aside] = (),
  max_pixels: int = MAX_PIXELS,
  max_images: int | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
  """Asks every question with greedy decoding, and marks the answers.

  A question with an image that is missing or broken, with too many images, or whose
  prompt is too long for the model, is set aside with its reason and counts neither as
  right nor as wrong. In a run of several processes all of them must call this function;
  each reads the images of its share of every batch.

  Args:
    config: the model.
    params: the parameters.
    encoder: converts questions to tokens, and tokens to answers.
    image_folder: the folder or folders of the images, searched in order.
    questions: the questions; see `tasks.read_questions`.
    batch_size: the number of questions in a batch, rounded up to a multiple of the
      shards of the mesh.
    max_new_tokens: the maximum of tokens in an answer, including its end token.
    mesh: the devices over which rows are sharded. It must be in context
      (`sharding.use`). None uses the default device.
    progress: called before the first batch, and after every batch, with the number of
      questions done and the total.
    aside: questions that were set aside before, to be counted in the results.
    max_pixels: the maximum of pixels; larger images are refused.
    max_images: questions with more images are set aside; None for no limit.

  Returns:
    The results (see `summarise`), and one prediction for each question that was asked,
    in the order of `questions`: id, task, images (their names), question, answers,
    prediction, score.

  Raises:
    InputError: no question is left to ask, or a setting is below 1.
  """
  for name, value in ("batch_size", batch_size), ("max_new_tokens", max_new_tokens):
    if value < 1:
      raise InputError(f"evaluate: {name} is {value}; it must be 1 or more.")
  folders = [image_folder] if isinstance(image_folder, str) else image_folder or []
  longest = config.decoder.max_length - max_new_tokens
  failed: dict[int, Aside] = {}
  prompts: dict[int, Sample] = {}
  pictures = Pictures(folders, encoder.images, max_pixels)

  def fail(place: int, error: RowError) -> None:
    question = questions[place]
    detail = ": ".join(part for part in (question.where, error.detail) if part)
    failed[place] = Aside(question.id, question.task, error.reason, detail)

  for place, question in enumerate(questions):
    try:
      check_count(len(question.images), max_images)
      prompt = encoder.prompt(question.question, pictures.measure(question))
      if len(prompt.tokens) > longest:
        raise RowError(
          "too long", f"a prompt of {len(prompt.tokens)} tokens; at most {longest} fit"
        )
    except RowError as error:
      fail(place, error)
    else:
      prompts[place] = prompt
  # Questions are sorted so that a batch has similar lengths, which reduces padding,
  # either images or none, since text alone needs no vision tower, and all questions
  # about the same images, which are then read once.
  order = sorted(
    prompts,
    key=lambda place: (
      generation.bucket_tiles(sum(i.layout.tiles for i in prompts[place].images)),
      generation.bucket_length(len(prompts[place].tokens)),
      [(i.folder or "", i.place or (i.name,)) for i in questions[place].images],
      place,
    ),
  )

  def read(place: int) -> tuple[UInt8[np.ndarray, "_ S S 3"], ...]:
    try:
      return pictures.read(questions[place])
    except RowError as error:
      fail(place, error)
      return ()

  answers: dict[int, str] = {}
  if progress:
    progress(0, len(questions))
  for batch in _answer(
    order,
    prompts,
    read,
    config,
    params,
    encoder,
    min(batch_size, max(1, len(order))),
    max_new_tokens,
    mesh,
  ):
    answers.update(batch)
    if progress:
      progress(len(answers) + len(questions) - len(order), len(questions))
  # A process knows only the images that it could not read itself.
  for text in peers.gather_text(json.dumps([*failed.items()])):
    failed |= {place: Aside(*values) for place, values in json.loads(text)}
  answers = {place: text for place, text in answers.items() if place not in failed}
  predictions, marked = [], []
  for place in sorted(answers):
    question = questions[place]
    score = metrics.mark(
      question.metric, answers[place], question.answers, question.choices
    )
    marked.append(Marked(question, answers[place], score))
    predictions.append(
      {
        "id": question.id,
        "task": question.task,
        "images": [image.name for image in question.images],
        "question": question.question,
        "answers": list(question.answers),
        "prediction": answers[place],
        "score": score,
      }
    )
  all_aside = [*aside, *(failed[place] for place in sorted(failed))]
  return summarise(marked, all_aside), predictions
