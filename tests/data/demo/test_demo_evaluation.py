"""The evaluation set: balanced, clean, and apart from pool and captions."""

import collections
import hashlib
import json

import demo_oracle
import pytest
from PIL import Image

from mllm_selector_jax.demo import (
  TASKS,
  EvaluationOptions,
  PoolOptions,
  caption_examples,
  draw_evaluation,
  draw_pool,
  vocabulary,
)
from mllm_selector_jax.demo.drawing import draw
from mllm_selector_jax.demo.language import SHORT_ANSWER, tokens
from mllm_selector_jax.demo.scenes import to_json
from mllm_selector_jax.types import InputError

QUESTIONS = 45


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
  folder = tmp_path_factory.mktemp("evaluation")
  counts = draw_evaluation(folder, EvaluationOptions(questions=QUESTIONS))
  lines = (folder / "eval.jsonl").read_text().splitlines()
  return folder, counts, [json.loads(line) for line in lines]


def hash_pixels(image):
  return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def hash_image(path):
  with Image.open(path) as image:
    return hash_pixels(image.convert("RGB"))


def test_lines_have_the_agreed_form(evaluation):
  folder, counts, lines = evaluation
  assert counts == dict.fromkeys(TASKS, QUESTIONS)
  assert collections.Counter(line["task"] for line in lines) == counts
  assert len({line["id"] for line in lines}) == len(lines)
  words = set(vocabulary())
  for line in lines:
    assert list(line) == ["id", "task", "image", "question", "answers", "metric"]
    assert line["metric"] == "exact_match" and len(line["answers"]) == 1
    assert line["question"].endswith(SHORT_ANSWER)
    assert "<image>" not in line["question"]
    assert set(tokens(line["question"] + " " + line["answers"][0])) <= words
    if line["task"] == "fact":
      assert line["image"] is None
    else:
      assert (folder / "images" / line["image"]).is_file()


def test_answers_are_balanced(evaluation):
  _, _, lines = evaluation
  for task, family in TASKS.items():
    answers = collections.Counter(
      line["answers"][0] for line in lines if line["task"] == task
    )
    least = min(answers[answer] for answer in family.answers)
    assert max(answers.values()) - least <= 1, task


def test_nothing_is_shared_with_pool_or_captions(evaluation, tmp_path):
  folder, _, lines = evaluation
  # The same seed on purpose: not the seeds keep them apart.
  draw_pool(tmp_path, PoolOptions(rows=800, seed=0, jpeg=0.0))
  records = json.loads((tmp_path / "pool.json").read_text())
  mine = {hash_image(folder / "images" / li["image"]) for li in lines if li["image"]}
  seen = {hash_image(path) for path in (tmp_path / "images").rglob("*.png")}
  seen |= {hash_pixels(image) for image, _ in caption_examples(800, seed=0)}
  assert len(mine) > 10 * QUESTIONS * 0.95 and len(seen) > 1200
  assert not mine & seen
  asked = {
    turn["value"].removeprefix("<image>\n").removesuffix(SHORT_ANSWER)
    for record in records
    for turn in record["conversations"][::2]
  }
  facts = {li["question"].removesuffix(SHORT_ANSWER) for li in lines if not li["image"]}
  assert not facts & asked
  assert len(facts) == QUESTIONS


def test_answers_are_right(evaluation):
  """The files, rebuilt from scenes that the oracle reads."""
  from mllm_selector_jax.demo import drawn_questions as module

  folder, _, lines = evaluation
  for task in TASKS:
    mine = [line for line in lines if line["task"] == task]
    options = EvaluationOptions(questions=QUESTIONS)
    for line, (scene, turn) in zip(mine, module.ask_evenly(task, options), strict=True):
      state = None if scene is None else to_json(scene)
      question = line["question"].removesuffix(SHORT_ANSWER)
      assert question == turn.question
      assert demo_oracle.answer(state, question) == line["answers"][0]
      if scene is not None:
        image = hash_image(folder / "images" / line["image"])
        assert image == hash_pixels(draw(scene))


def test_the_same_options_give_the_same_bytes(tmp_path):
  options = EvaluationOptions(questions=8, seed=2)
  draw_evaluation(tmp_path / "one", options)
  draw_evaluation(tmp_path / "two", options)
  draw_evaluation(tmp_path / "other", EvaluationOptions(questions=8, seed=3))
  one, two, other = (
    {
      str(path.relative_to(tmp_path / name)): path.read_bytes()
      for path in (tmp_path / name).rglob("*")
      if path.is_file()
    }
    for name in ("one", "two", "other")
  )
  assert one == two
  assert not set(one.values()) & set(other.values())


def test_chosen_tasks_only_and_each_as_in_the_whole(evaluation, tmp_path):
  _, _, lines = evaluation
  seen = []
  options = EvaluationOptions(questions=QUESTIONS, tasks=("value",))
  assert draw_evaluation(tmp_path, options, lambda *n: seen.append(n)) == {
    "value": QUESTIONS
  }
  mine = [json.loads(line) for line in (tmp_path / "eval.jsonl").open()]
  whole = [line for line in lines if line["task"] == "value"]
  assert [li["question"] for li in mine] == [li["question"] for li in whole]
  assert seen == [(QUESTIONS, QUESTIONS)]


def test_a_very_large_set_of_facts_repeats_some(tmp_path):
  count = 2500
  draw_evaluation(tmp_path, EvaluationOptions(questions=count, tasks=("fact",)))
  assert len((tmp_path / "eval.jsonl").read_text().splitlines()) == count


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"questions": 0}, "questions is 0"),
    ({"seed": -3}, "seed is -3"),
    ({"tasks": ("reading",)}, "no task 'reading'"),
  ],
)
def test_options_that_cannot_be(options, message):
  with pytest.raises(InputError, match=message):
    EvaluationOptions(**options)
