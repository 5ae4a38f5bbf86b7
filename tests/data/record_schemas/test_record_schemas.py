"""Every published shape of a record gives one conversation, and the same hash."""

import base64
import json
import re
from pathlib import Path

import pytest

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.pool import row_hash
from mllm_selector_jax.data.record_schemas import refusals
from mllm_selector_jax.types import MARK, Picture, Record, RowError

QUESTION, ANSWER = "Which colour?", "Teal."
TALK = [
  {"from": "human", "value": f"{MARK}\n{QUESTION}"},
  {"from": "gpt", "value": ANSWER},
]
ROLES = [
  {"role": "user", "content": f"{MARK}{QUESTION}"},
  {"role": "assistant", "content": ANSWER},
]
PAIR = {"question": f"{MARK}{QUESTION}", "answer": ANSWER}
DATA = b"\x89PNG\r\n\x1a\n" + bytes(range(90))
TEXT = base64.b64encode(DATA).decode()


def parts(image: dict) -> list[dict]:
  content = [image, {"type": "text", "text": QUESTION}]
  return [{"role": "user", "content": content}, ROLES[1]]


def read(value: dict, **extra) -> record_schemas.Content:
  return record_schemas.read_content(Record(0, 0, value, **extra))


def reason_of(value: dict) -> RowError:
  with pytest.raises(RowError) as caught:
    read(value)
  return caught.value


# One conversation about the image a.png, in every form in which it is published.
FORMS = {
  "llava": {"image": "a.png", "conversations": TALK},
  "llava, no mark": {
    "image": "a.png",
    "conversations": [{"from": "human", "value": QUESTION}, TALK[1]],
  },
  "qwen-vl": {
    "conversations": [
      {"from": "user", "value": f"Picture 1: <img>a.png</img>\n{QUESTION}"},
      {"from": "assistant", "value": ANSWER},
    ]
  },
  "capitals": {
    "image": "a.png",
    "conversations": [
      {"from": "Human", "value": TALK[0]["value"]},
      {"from": "GPT", "value": ANSWER},
    ],
  },
  "role and value": {
    "image": "a.png",
    "conversations": [
      {"role": "user", "value": TALK[0]["value"]},
      {"role": "assistant", "value": ANSWER},
    ],
  },
  "from and content": {
    "image": "a.png",
    "conversations": [
      {"from": "user", "content": TALK[0]["value"]},
      {"from": "assistant", "content": ANSWER},
    ],
  },
  "json text": {"image": "a.png", "conversations": json.dumps(TALK)},
  "struct of lists": {
    "image": "a.png",
    "conversations": {
      "from": ["human", "gpt"],
      "value": [turn["value"] for turn in TALK],
    },
  },
  "messages": {"images": ["a.png"], "messages": ROLES},
  "messages, no mark": {
    "images": ["a.png"],
    "messages": [{"role": "user", "content": QUESTION}, ROLES[1]],
  },
  "trl parts": {"images": ["a.png"], "messages": parts({"type": "image"})},
  "image part": {"messages": parts({"type": "image", "image": "a.png"})},
  "path part": {"messages": parts({"type": "image", "path": "a.png"})},
  "url part": {"messages": parts({"type": "image", "url": "a.png"})},
  "openai": {"messages": parts({"type": "image_url", "image_url": {"url": "a.png"}})},
  "llama-factory 1": {"messages": parts({"type": "image_url", "value": "a.png"})},
  "qwen parts": {"messages": parts({"image": "a.png"})},
  "split user": {
    "images": ["a.png"],
    "messages": [
      {"role": "user", "content": MARK},
      {"role": "user", "content": QUESTION},
      ROLES[1],
    ],
  },
  "conversation": {"image": "a.png", "conversation": TALK},
  "ms-swift pairs": {
    "images": ["a.png"],
    "conversation": [{"human": f"{MARK}{QUESTION}", "assistant": ANSWER}],
  },
  "cauldron": {
    "images": ["a.png"],
    "texts": [{"user": QUESTION, "assistant": ANSWER, "source": "x"}],
  },
  "texts of roles": {"images": ["a.png"], "texts": ROLES},
  "prompt, completion": {
    "images": ["a.png"],
    "prompt": [{"role": "user", "content": QUESTION}],
    "completion": [ROLES[1]],
  },
  "prompt, completion text": {
    "image": "a.png", "prompt": QUESTION, "completion": ANSWER
  },
  "alpaca": {
    "images": ["a.png"],
    "instruction": f"{MARK}{QUESTION}",
    "input": "",
    "output": ANSWER,
  },
  "prompt, query, response": {
    "images": ["a.png"], "prompt": MARK, "query": QUESTION, "response": ANSWER
  },
  "input, output": {"images": ["a.png"], "input": QUESTION, "output": ANSWER},
  "input alone": {
    "images": ["a.png"], "instruction": "", "input": QUESTION, "output": ANSWER
  },
  "problem, solution": {
    "image": "a.png", "problem": f"{MARK}{QUESTION}", "solution": ANSWER
  },
  "query, response": {
    "images": ["a.png"], "query": f"{MARK}{QUESTION}", "response": ANSWER
  },
  "prompt, response": {"images": "a.png", "prompt": QUESTION, "response": ANSWER},
  "question, answer": {"image": "a.png", **PAIR},
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_one_conversation_in_every_form(name):
  content = read(FORMS[name])
  assert content.pictures == (Picture("a.png"),)
  assert row_hash.hash_row(content.conversations, "x") == row_hash.hash_row(TALK, "x")
  assert content.unread == ()
  placed = "no mark" in name or not any(MARK in str(v) for v in FORMS[name].values())
  named = "img" in str(FORMS[name]) or '"type"' in json.dumps(FORMS[name])
  named = named or name == "qwen parts"
  assert (record_schemas.PLACED in content.notes) == (placed and not named)


def test_every_schema_is_tested_and_listed_in_the_docs():
  read_by = {
    next(s for s in record_schemas.SCHEMAS if all(f in form for f in s.fields))
    for form in FORMS.values()
  }
  assert read_by == set(record_schemas.SCHEMAS)
  page = (Path(__file__).parents[3] / "docs/pools.md").read_text()
  for schema in record_schemas.SCHEMAS:
    fields = ", ".join(f"`{field}`" for field in schema.fields)
    assert f"| {fields} | {schema.form} | {schema.source} |" in page


@pytest.mark.parametrize(
  "history",
  [
    [["Hello!", "Hello."]],
    [{"user": "Hello!", "assistant": "Hello."}],
    [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello."}],
  ],
)
@pytest.mark.parametrize("fields", [("instruction", "output"), ("query", "response")])
def test_a_history_comes_first(fields, history):
  value = dict(zip(fields, (QUESTION, ANSWER), strict=True)) | {"history": history}
  assert [turn.text for turn in read(value).turns] == [
    "Hello!", "Hello.", QUESTION, ANSWER
  ]  # fmt: skip


def test_an_input_stands_on_a_line_after_the_instruction():
  found = read({"instruction": "Translate.", "input": "Haus", "output": "house"})
  assert found.turns[0].text == "Translate.\nHaus"


def test_two_images_keep_their_marks():
  talk = [{"role": "user", "content": f"Left: {MARK} right: {MARK}?"}, ROLES[1]]
  found = read({"images": ["a.png", "b.png"], "messages": talk})
  assert [each.name for each in found.pictures] == ["a.png", "b.png"]
  assert found.turns[0].text == talk[0]["content"] and found.notes == ()
  found = read({"image_1": "b.png", "image_0": "a.png", "messages": talk})
  assert [each.name for each in found.pictures] == ["a.png", "b.png"]


def test_one_image_marked_in_each_question_is_one_image():
  talk = [*ROLES, {"role": "user", "content": f"{MARK}\nAnd?"}, ROLES[1]]
  found = read({"images": ["a.png"], "messages": talk})
  assert found.notes == (record_schemas.REPEATED,)
  assert [turn.text for turn in found.turns] == [
    ROLES[0]["content"], ANSWER, "And?", ANSWER
  ]  # fmt: skip


def test_a_mark_in_an_answer_is_text_where_there_is_no_image():
  answer = f"Use the {MARK} tag."
  assert read({"question": "How?", "answer": answer}).turns[1].text == answer
  error = reason_of({"image": "a.png", "question": "Draw!", "answer": answer})
  assert error.reason == "image marks" and "answer" in error.detail


def test_marks_and_images_that_differ_in_number():
  error = reason_of({"image": ["a.png", "b.png"], **PAIR})
  assert error.reason == "image marks" and "1 <image>" in error.detail
  error = reason_of({"image": "a.png", "question": 2 * MARK, "answer": ANSWER})
  assert error.reason == "image marks" and "2 <image>" in error.detail


SYSTEM = {"from": "system", "value": "Be brief."}


@pytest.mark.parametrize(
  "value",
  [
    {"conversations": [SYSTEM, *TALK]},
    {"system": "Be brief.", "conversations": TALK},
    {"system_prompt": "Be brief.", "messages": ROLES},
    {"messages": [{"role": "system", "content": "Be brief."}, *ROLES]},
    {
      "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *ROLES
      ]
    },
  ],
)  # fmt: skip
def test_a_system_text_comes_first_wherever_it_stands(value):
  found = read({"image": "a.png", **value})
  assert found.conversations[0] == SYSTEM and found.unread == ()
  talk = row_hash.hash_row([SYSTEM, *TALK], [])
  assert row_hash.hash_row(found.conversations, []) == talk


@pytest.mark.parametrize("field", ["loss", "weight", "loss_weight", "train"])
@pytest.mark.parametrize("off", [0, False, 0.0])
def test_a_masked_answer_is_marked_as_such(field, off):
  talk = [*ROLES, ROLES[0] | {"content": "And?"}, ROLES[1]]
  talk[1] = talk[1] | {field: off}
  talk[3] = talk[3] | {field: 1}
  found = read({"images": ["a.png"], "messages": talk})
  assert [turn.get("loss") for turn in found.conversations] == [None, False, None, None]
  assert found.unread == ()


def test_fields_that_are_not_read_are_listed():
  value = {
    "id": 7, "source": "s", "image": "a.png", "objects": {"bbox": [[1, 2]]},
    "tools": "[]", "note": None, "clip": float("nan"),
    "messages": [ROLES[0] | {"weight": 0.5}, ROLES[1] | {"name": "x"}],
  }  # fmt: skip
  assert read(value).unread == ("objects", "tools", "clip", "messages.weight",
                                "messages.name")  # fmt: skip


@pytest.mark.parametrize(
  ("value", "reason", "words"),
  [
    ({"chosen": "a", "rejected": "b", "prompt": "c"}, "malformed", "DPO pairs: prompt"),
    (
      {"conversations": TALK[:1], "chosen": {}, "rejected": {}},
      "malformed",
      "DPO pairs",
    ),
    ({"prompt": "a", "completion": "b", "label": True}, "malformed", "KTO feedback"),
    ({"messages": ROLES, "kto_tag": False}, "malformed", "KTO feedback"),
    ({"text": "once"}, "malformed", "plain text for language modelling: text"),
    ({"caption": "a", "url": "http://x"}, "malformed", "img2dataset"),
    ({"image": "a.png", "caption": "a"}, "malformed", "image-caption pairs"),
    ({"image": "a.png", "question": "a"}, "malformed", "without an answer"),
    ({"root": "a", "annotation": "b"}, "malformed", "InternVL"),
    ({"messages": ROLES[1:]}, "malformed", "pre-training text"),
    ({"wrong": 1}, "malformed", "none of conversations, messages"),
    ({"conversations": "hello"}, "malformed", "not JSON of turns"),
    ({"conversations": {"from": ["a"], "value": []}}, "malformed", "differ in length"),
    ({"conversations": [{"value": "a"}]}, "malformed", "names no speaker"),
    ({"conversations": [TALK[0], {"from": "gpt", "value": 4}]}, "malformed", "int"),
    ({"instruction": "a", "output": ["b", "c"]}, "malformed", "2 texts"),
    (
      {"messages": [ROLES[0], {"role": "tool", "content": "x"}]},
      "tool calls",
      "from tool",
    ),
    (
      {"messages": [ROLES[0], ROLES[1] | {"content": None, "tool_calls": [1]}]},
      "tool calls",
      "tool_calls",
    ),
    (
      {"messages": [*ROLES, {"role": "function_response", "content": "{}"}]},
      "tool calls",
      "function_response",
    ),
    (
      {"conversations": [TALK[0], {"from": "function_call", "value": "{}"}]},
      "tool calls",
      "function_call",
    ),
    ({"video": "a.mp4", **PAIR}, "video", "video"),
    (
      {"messages": parts({"type": "video", "video": "a.mp4"})},
      "video",
      "video",
    ),
    ({"audios": ["a.wav"], **PAIR}, "audio", "audios"),
    ({"question": "<video>\nWhat?", "answer": "x"}, "video", "<video>"),
  ],
)
def test_what_is_not_read_is_named_by_its_form(value, reason, words):
  error = reason_of(value)
  assert error.reason == reason and words in error.detail


def test_every_named_form_is_one_that_no_schema_reads():
  for fields, name in refusals._FORMS:
    value = dict.fromkeys(fields, "x")
    assert re.search(re.escape(name), reason_of(value).detail)


def test_pictures_of_a_record_that_cannot_be_used():
  record = Record(0, 0, {"image": "a.png", "conversations": "broken"})
  assert record_schemas.read_pictures(record) == (Picture("a.png"),)
  record = Record(0, 0, FORMS["openai"])
  assert record_schemas.read_pictures(record) == (Picture("a.png"),)
