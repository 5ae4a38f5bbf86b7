"""Reading questions: both forms, task names, rows set aside, even samples."""

import collections
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.evaluation import tasks
from mllm_selector_jax.evaluation.question import QuestionImage
from mllm_selector_jax.evaluation.tasks import Question
from mllm_selector_jax.types import REASONS, InputError

PLAIN = {"id": "q1", "question": "What colour?", "answers": ["red"]}


def _write(folder, rows, name="eval.jsonl"):
  path = folder / name
  if name.endswith(".json"):
    path.write_text(json.dumps(rows))
  else:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def _read_one(folder, row, **kwargs):
  questions, aside = tasks.read_questions([_write(folder, [row])], **kwargs)
  assert not aside
  (question,) = questions
  assert question.where.startswith(f"{folder}/eval.jsonl, row 0 at byte 0")
  return question._replace(where="")


def _read_aside(folder, row):
  """The reason and the detail of a row that stands behind a good one."""
  questions, aside = tasks.read_questions([_write(folder, [PLAIN, row])])
  assert [question.id for question in questions] == ["q1"]
  (item,) = aside
  assert item.reason in REASONS
  assert "eval.jsonl, row 1 at byte" in item.detail
  return item.reason, item.detail


def test_a_question_row(tmp_path):
  row = PLAIN | {"image": "a/b.png", "task": "colour", "metric": "vqa"}
  expected = Question(
    "q1", "colour", (QuestionImage("a/b.png"),), "What colour?", ("red",), "vqa"
  )
  assert _read_one(tmp_path, row) == expected


def test_defaults_are_text_alone_exact_match_and_the_files_name(tmp_path):
  assert _read_one(tmp_path, PLAIN) == Question(
    "q1", "eval", (), "What colour?", ("red",), "exact_match"
  )


@pytest.mark.parametrize(
  "answers, read",
  [("red", ("red",)), (["red", "crimson "], ("red", "crimson")), ([3], ("3",))],
)
def test_answers_may_be_one_or_several_texts_or_numbers(tmp_path, answers, read):
  assert _read_one(tmp_path, PLAIN | {"answers": answers}).answers == read


@pytest.mark.parametrize("name", ["eval.json", "eval.jsonl"])
def test_llava_conversations_give_their_first_round(tmp_path, name):
  row = {
    "id": 7,
    "image": "x.png",
    "conversations": [
      {"from": "gpt", "value": "a greeting"},
      {"from": "human", "value": "<image>\nIs it red?\nOne word."},
      {"from": "gpt", "value": "yes"},
      {"from": "human", "value": "Why?"},
      {"from": "gpt", "value": "because"},
    ],
  }
  text = {
    "id": 8,
    "conversations": [
      {"from": "human", "value": "2 + 2?"},
      {"from": "gpt", "value": "4"},
    ],
  }
  questions, aside = tasks.read_questions([_write(tmp_path, [row, text], name)])
  assert not aside
  assert [question._replace(where="") for question in questions] == [
    Question(7, "eval", (QuestionImage("x.png"),), "Is it red?\nOne word.", ("yes",)),
    Question(8, "eval", (), "2 + 2?", ("4",)),
  ]


def test_the_two_forms_may_stand_in_one_file(tmp_path):
  turns = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]
  path = _write(tmp_path, [PLAIN, {"id": "q2", "conversations": turns}])
  questions, _ = tasks.read_questions([path])
  assert [question.answers for question in questions] == [("red",), ("4",)]


def test_the_first_matching_rule_names_the_task_unless_the_record_does(tmp_path):
  rows = [
    PLAIN | {"id": 1, "question": "how many red ones?"},
    PLAIN | {"id": 2, "question": "is it red?"},
    PLAIN | {"id": 3, "question": "what?"},
    PLAIN | {"id": 4, "question": "how many?", "task": "own"},
  ]
  rules = [("count", "^how many"), ("red", "red")]
  questions, _ = tasks.read_questions([_write(tmp_path, rows)], rules)
  assert [question.task for question in questions] == ["count", "red", "eval", "own"]


def test_each_source_of_a_file_with_several_is_a_task(tmp_path):
  turns = [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]
  rows = [
    PLAIN | {"id": 1, "source": "scenes"},
    PLAIN | {"id": 2, "data_source": "charts"},
    {"id": 3, "source": "scenes", "conversations": turns},
    PLAIN | {"id": 4, "source": "scenes", "task": "own"},
    PLAIN | {"id": 5},
    PLAIN | {"id": 6, "source": "", "data_source": "charts"},
    PLAIN | {"id": 7, "source": {"a": 1}},
    PLAIN | {"id": 8, "source": "charts", "question": "how many?"},
    PLAIN | {"id": 1, "source": "charts"},  # an id is unique inside its task
    PLAIN | {"id": 10, "source": 7},
  ]
  path = _write(tmp_path, rows)
  questions, aside = tasks.read_questions([path], [("count", "^how many")])
  assert not aside
  assert [question.task for question in questions] == [
    *("scenes", "charts", "scenes", "own", "eval", "charts", "eval", "count"),
    *("charts", "7"),
  ]


def test_a_file_with_one_source_is_one_task_of_its_name(tmp_path):
  one = _write(tmp_path, [PLAIN | {"source": "scenes"}, PLAIN | {"id": 2}], "one.jsonl")
  rows = [PLAIN | {"id": n, "source": name} for n, name in enumerate("aab")]
  two = _write(tmp_path, rows, "two.json")
  questions, _ = tasks.read_questions([one, two])
  assert [question.task for question in questions] == ["one", "one", "a", "a", "b"]
  sampled, _ = tasks.read_questions([two], limit=2)
  assert {question.task for question in sampled} == {"a", "b"}


def test_parquet_with_several_sources(tmp_path):
  import pyarrow as pa
  import pyarrow.parquet as pq

  path = tmp_path / "held.parquet"
  rows = [PLAIN | {"id": n, "data_source": name} for n, name in enumerate("ab")]
  pq.write_table(pa.Table.from_pylist(rows), path)
  questions, aside = tasks.read_questions([str(path)])
  assert [question.task for question in questions] == ["a", "b"] and not aside


def test_choices_are_asked_with_letters_and_answered_by_letter(tmp_path):
  row = PLAIN | {"choices": ["blue", "red", 3], "answers": ["red"]}
  question = _read_one(tmp_path, row)
  assert question.metric == "multiple_choice"
  assert question.answers == ("B",)
  assert question.choices == ("blue", "red", "3")
  assert question.question.splitlines() == [
    "What colour?",
    "A. blue",
    "B. red",
    "C. 3",
    "Answer with the option's letter from the given choices directly.",
  ]
  assert _read_one(tmp_path, row | {"answers": "c"}).answers == ("C",)


@pytest.mark.parametrize(
  "row, reason, detail",
  [
    ({"id": "x"}, "malformed", "question"),
    (PLAIN | {"answers": []}, "malformed", "answers"),
    (PLAIN | {"answers": " "}, "malformed", "answers"),
    (PLAIN | {"answers": None}, "malformed", "answers"),
    (PLAIN | {"answers": [{"a": 1}]}, "malformed", "answers"),
    (PLAIN | {"answers": [True]}, "malformed", "answers"),
    (PLAIN | {"question": "  "}, "malformed", "empty"),
    (PLAIN | {"id": None}, "malformed", "id"),
    (PLAIN | {"id": 1.5}, "malformed", "id"),
    (PLAIN | {"id": "t", "task": 3}, "malformed", "task"),
    (PLAIN | {"id": "i", "image": 3}, "malformed", "image"),
    (PLAIN, "duplicate id", "q1"),
    (PLAIN | {"choices": ["a"] * 27}, "malformed", "27"),
    (PLAIN | {"choices": ["blue", "green"]}, "malformed", "red"),
    (PLAIN | {"id": "c", "conversations": "hello"}, "malformed", "list"),
    (PLAIN | {"id": "c", "conversations": []}, "malformed", "human"),
    (PLAIN | {"id": "c", "conversations": [{"from": "gpt"}]}, "malformed", "value"),
    (
      {"id": "c", "conversations": [{"from": "human", "value": "why?"}]},
      "malformed",
      "answer",
    ),
    (
      {
        "id": "c",
        "conversations": [
          {"from": "human", "value": "<image> why?"},
          {"from": "gpt", "value": "so"},
        ],
      },
      "image marks",
      "1 <image> in the questions, no image",
    ),
  ],
)
def test_bad_rows_are_set_aside_with_their_place(tmp_path, row, reason, detail):
  found, told = _read_aside(tmp_path, row)
  assert found == reason and detail in told


def test_a_broken_line_is_set_aside_and_the_rest_is_read(tmp_path):
  path = tmp_path / "eval.jsonl"
  rest = json.dumps(PLAIN | {"id": "q2"})
  path.write_text(json.dumps(PLAIN) + '\n{"id": \n' + rest + "\n")
  questions, aside = tasks.read_questions([str(path)])
  assert [question.id for question in questions] == ["q1", "q2"]
  assert [item.reason for item in aside] == ["malformed"]


def test_one_id_may_stand_in_two_tasks_and_keeps_its_type(tmp_path):
  rows = [PLAIN, PLAIN | {"task": "other"}, PLAIN | {"id": 1}, PLAIN | {"id": "1"}]
  questions, aside = tasks.read_questions([_write(tmp_path, rows)])
  assert [question.id for question in questions] == ["q1", "q1", 1, "1"]
  assert not aside


@pytest.mark.parametrize(
  "content, message",
  [
    (None, "absent.jsonl.*not there"),
    ("", "absent.jsonl.*empty"),
    ("\n", "absent.jsonl.*blank"),
    ("[]", "absent.jsonl.*empty"),
    ("{}\n", "rows set aside: 1.*malformed"),
    (json.dumps(PLAIN | {"metric": "bleu"}), "metric is 'bleu'; allowed: exact_match"),
  ],
)
def test_a_file_that_gives_no_question_is_refused(tmp_path, content, message):
  path = tmp_path / "absent.jsonl"
  if content is not None:
    path.write_text(content)
  with pytest.raises(InputError, match=message):
    tasks.read_questions([str(path)])


def test_wrong_settings_are_refused(tmp_path):
  path = _write(tmp_path, [PLAIN])
  with pytest.raises(InputError, match="No evaluation file"):
    tasks.read_questions([])
  with pytest.raises(InputError, match="regular expression"):
    tasks.read_questions([path], [("count", "(")])
  with pytest.raises(InputError, match="limit of 0"):
    tasks.read_questions([path], limit=0)


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(SIZES, st.integers(1, 40), st.integers(0, 3))
def test_samples_are_even_ordered_nested_and_repeatable(sizes, limit, seed):
  questions = [
    Question(f"{task}-{i}", f"task{task}", (), "?", ("x",))
    for task, size in enumerate(sizes)
    for i in range(size)
  ]
  kept = tasks.sample_evenly(questions, limit, seed)
  assert len(kept) == min(limit, len(questions))
  assert kept == [question for question in questions if question in set(kept)]
  counts = collections.Counter(question.task for question in kept)
  most = max(counts.values())
  for task, size in enumerate(sizes):
    assert counts[f"task{task}"] in (min(size, most), min(size, most - 1))
  assert set(tasks.sample_evenly(questions, max(1, limit - 1), seed)) <= set(kept)
  again = tasks.sample_evenly(questions[::-1], limit, seed)
  assert again == kept[::-1]


def test_the_seed_changes_the_sample(tmp_path):
  rows = [PLAIN | {"id": i} for i in range(50)]
  path = _write(tmp_path, rows)
  first, _ = tasks.read_questions([path], limit=10, seed=0)
  second, _ = tasks.read_questions([path], limit=10, seed=1)
  assert len(first) == len(second) == 10 and first != second
