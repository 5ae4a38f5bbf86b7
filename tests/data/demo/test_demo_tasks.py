"""Every family's answers against an oracle that shares no code with it."""

import collections

import demo_oracle
import numpy as np
import pytest

from mllm_selector_jax.demo import language, scenes
from mllm_selector_jax.demo.question_families import TASKS

COUNT = 400


def ask_often(name, seed=0):
  """Random questions of a family, about its own scenes."""
  rng = np.random.default_rng(seed)
  task, asked = TASKS[name], []
  while len(asked) < COUNT:
    scene = task.make_scene(rng) if task.make_scene else None
    turn = task.ask(rng, scene)
    if turn is not None:
      asked.append((scene, turn))
  return asked


@pytest.mark.parametrize("name", TASKS)
def test_answers_are_right(name):
  for scene, turn in ask_often(name):
    state = None if scene is None else scenes.to_json(scene)
    assert demo_oracle.answer(state, turn.question) == turn.answer, (turn, state)


@pytest.mark.parametrize("name", TASKS)
def test_answers_are_known_and_have_plausible_rivals(name):
  for _, turn in ask_often(name, 1):
    assert turn.answer in TASKS[name].answers
    assert set(turn.options) <= set(TASKS[name].answers)
    assert turn.answer in turn.options and len(set(turn.options)) > 1


@pytest.mark.parametrize("name", TASKS)
def test_no_answer_is_a_good_guess(name):
  answers = collections.Counter(turn.answer for _, turn in ask_often(name, 2))
  assert set(answers) == set(TASKS[name].answers)
  assert answers.most_common(1)[0][1] / COUNT < 0.1 + 1.5 / len(TASKS[name].answers)


@pytest.mark.parametrize("name", TASKS)
def test_questions_about_foreign_scenes_are_right_or_none(name):
  rng = np.random.default_rng(3)
  others = [task for task in TASKS.values() if task.make_scene]
  for i in range(200):
    scene = others[i % len(others)].make_scene(rng)
    turn = TASKS[name].ask(rng, scene)
    if turn is not None:
      state = scenes.to_json(scene)
      assert demo_oracle.answer(state, turn.question) == turn.answer, (turn, state)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.hint])
def test_hints_give_the_right_answer_away(name):
  rng = np.random.default_rng(4)
  for _ in range(100):
    scene = TASKS["existence"].make_scene(rng)
    turn = TASKS[name].hint(rng, scene)
    if turn is None:
      assert not isinstance(scene, scenes.SceneLayout)
      continue
    assert demo_oracle.answer(scenes.to_json(scene), turn.question) == turn.answer
    if name != "existence":
      assert turn.answer in language.tokens(turn.question)


def test_hinted_existence_is_true_of_the_scene():
  rng = np.random.default_rng(5)
  for _ in range(100):
    scene = TASKS["shape"].make_scene(rng)
    turn = TASKS["existence"].hint(rng, scene)
    question = turn.question.split(". ")[1]
    assert demo_oracle.answer(scenes.to_json(scene), question) == turn.answer


def test_facts_agree_with_the_oracle():
  for kind, facts in language.FACTS.items():
    for asked, answer in facts:
      for wording in language.FACT_WORDINGS[kind]:
        for lead_in in language.LEAD_INS:
          question = lead_in + wording.format(*asked)
          assert demo_oracle.answer(None, question) == answer, question
