"""Special tokens in a row's text: tokens where they say something of the content."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from mllm_selector_jax.data.pool.checked_parts import Parts
from mllm_selector_jax.data.pool.pool_check import check_pool
from mllm_selector_jax.data.pool.summary_text import format_summary
from mllm_selector_jax.data.tokens import template_source
from mllm_selector_jax.data.tokens.conversation import make_encoder
from mllm_selector_jax.data.tokens.specials import Count, Specials, read_choice
from mllm_selector_jax.types import InputError
from tests.data.pools_on_the_spot import write_records
from tests.data.test_conversation import talk
from tests.data.test_templates import CHATML, PATCHES, messages, oracle
from tests.fixed_images import ONE_IMAGE, fixed_images
from tests.llama_like import make_tokenizer

CONTENT = ("<box>", "</box>", "<ref>", "</ref>", "<loc_7>", "<|box_start|>", "[SEG]")
FRAMES = ("<|start_header_id|>", "<|eot_id|>", "[AVAILABLE_TOOLS]", "<start_of_turn>")
FRAMES += ("<tool_call>", "<|fim_prefix|>", "<|vision_start|>", "<|image_pad|>")
PLAIN = ("<plain>", "mitochondrion")
ALL = (*CONTENT, *FRAMES, *PLAIN)
KINDS = ("qwen", "first", "normalizer")


def make(name="chatml", kind="qwen", choice="auto", source=CHATML, **changes):
  tokenizer = make_tokenizer(kind, begins=False)
  tokenizer.add_special_tokens({"additional_special_tokens": [*CONTENT, *FRAMES]})
  tokenizer.add_tokens([AddedToken(name, normalized=False) for name in PLAIN])
  for role, token in changes.items():
    setattr(tokenizer, role, token)
  tokenizer.chat_template = source
  return make_encoder(
    name,
    tokenizer,
    fixed_images(3, PATCHES),
    10_000,
    content_specials=read_choice(choice),
  )


def ids_of(encoder, names):
  return encoder.tokenizer.convert_tokens_to_ids(list(names))


def spelled(encoder, text, has_image=False):
  """The ids of added tokens that a text brings as a question and as an answer."""
  mark = "<image>\n" if has_image else ""
  found = []
  for values in ((f"{mark}what? {text}", "red"), (f"{mark}what?", f"red {text}")):
    tokens = encoder.encode(talk(*values), has_image * ONE_IMAGE).tokens.tolist()
    found.append([token for token in tokens if token in ids_of(encoder, ALL)])
  assert found[0] == found[1]
  prompt = encoder.prompt(f"what? {text}", has_image * ONE_IMAGE).tokens.tolist()
  assert [token for token in prompt if token in ids_of(encoder, ALL)] == found[0]
  return found[0]


@pytest.mark.parametrize("has_image", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vicuna_v1", "chatml", "llama-2", "chat"])
def test_content_is_tokens_and_what_frames_is_text(name, kind, has_image):
  encoder = make(name, kind)
  for token in (*CONTENT, *PLAIN):
    assert spelled(encoder, f"{token} a", has_image) == ids_of(encoder, [token]), token
  for token in (*FRAMES, "<|im_end|>", "</s>", "<unk>"):
    assert spelled(encoder, f"{token} a", has_image) == [], token
    frame = encoder.encode(talk("what?", "red")).tokens.tolist()
    tokens = encoder.encode(talk(f"{token} what?", f"red {token}")).tokens
    special = encoder.tokenizer.all_special_ids
    assert [t for t in tokens.tolist() if t in special] == [
      t for t in frame if t in special
    ], token


TEXT = st.text(
  st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Co", "Cn"]), max_size=9
).filter(lambda text: "<" not in text and "[" not in text)
SPELLED = st.lists(st.one_of(TEXT, st.sampled_from(CONTENT + PLAIN)), max_size=6)


@pytest.mark.parametrize("kind", KINDS)
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(question=SPELLED, answer=SPELLED, image=st.booleans())
def test_ids_are_those_that_transformers_gives(kind, question, answer, image):
  encoder = make(kind=kind)
  values = ["".join(question), "".join(answer)]
  hypothesis.assume(values[1].strip())
  values[0] = f"<image>\n{values[0]}" if image else values[0]
  sample = encoder.encode(talk(*values), image * ONE_IMAGE)
  chat = messages(values, "You are a helpful assistant.")
  ids, mask = oracle(encoder.tokenizer, CHATML, chat)
  assert sample.tokens.tolist() == ids.tolist()
  np.testing.assert_array_equal(sample.supervised, mask)


@pytest.mark.parametrize("name", ["vicuna_v1", "chatml", "llama-2"])
def test_the_chat_template_of_an_export_gives_the_same_ids(name):
  encoder = make(name)
  source, exact = template_source.make_chat_template(encoder)
  assert exact
  values = ("<image>\nWhere is the <ref>star</ref>?", "<box><loc_7><loc_7></box> there")
  sample = encoder.encode(talk(*values), ONE_IMAGE)
  for listed in (False, True):
    chat = messages(values, listed=listed)
    ids, mask = oracle(encoder.tokenizer, source, chat)
    assert sample.tokens.tolist() == ids.tolist()
    assert mask.tolist() == sample.supervised.tolist()


def test_an_answer_keeps_its_content_tokens_and_loses_its_end():
  encoder = make()
  answer = "<ref>a star</ref><box><loc_7></box> [SEG]"
  sample = encoder.encode(talk("where?", answer))
  learned = sample.tokens[sample.supervised]
  assert set(ids_of(encoder, CONTENT)) & set(learned.tolist())
  assert encoder.answers.read(learned) == answer
  before = make(choice="none")
  assert before.answers.read(learned) == "a star"


@pytest.mark.parametrize(
  ("choice", "tokens"),
  [
    ("auto", CONTENT + PLAIN),
    ("none", PLAIN),
    ("<box>,</box>", ("<box>", "</box>", *PLAIN)),
    (["<tool_call>", "[SEG]"], ("<tool_call>", "[SEG]", *PLAIN)),
  ],
)
def test_the_option(choice, tokens):
  encoder = make(choice=choice)
  for token in ALL:
    wanted = ids_of(encoder, [token]) if token in tokens else []
    assert spelled(encoder, token) == wanted, token


@pytest.mark.parametrize(
  ("choice", "words"),
  [
    ("<bx>", "<bx>, which the base's tokenizer does not have"),
    ("<box>,<|im_end|>", "<|im_end|>, which the conversation"),
    ("</s>", "begins or ends a text"),
    ("", "names no token"),
    (3, "allowed are auto, none, and names"),
    (True, "allowed are auto, none, and names"),
  ],
)
def test_a_wrong_option_is_named(choice, words):
  with pytest.raises(InputError) as caught:
    make(choice=choice)
  assert words in str(caught.value) and "model.content_specials" in str(caught.value)


def test_a_token_for_content_that_the_base_uses_as_a_frame_is_text():
  """By its role, by the base's own chat template, as an end, by a named role."""
  assert spelled(make(pad_token="<box>"), "<box>") == []
  other = CHATML.replace("{{ '\n' }}", "{% if tools %}<ref>{% endif %}{{ '\n' }}")
  for name in ("chatml", "vicuna_v1"):
    assert spelled(make(name, source=other), "<ref>") == []
  tokenizer = make().tokenizer
  (box,) = tokenizer.convert_tokens_to_ids(["<box>"])
  assert box not in Specials(tokenizer, 3, ()).literal
  assert box in Specials(tokenizer, 3, (), ends=[box]).literal
  named = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer.backend_tokenizer,
    extra_special_tokens={"boi_token": "<box>", "box_token": "<ref>"},
  )
  assert box in Specials(named, 3, ()).literal
  assert not {*ids_of(make(), ["<ref>"])} & Specials(named, 3, ()).literal


@pytest.mark.parametrize("name", ["vicuna_v1", "chat"])
def test_marks_of_turns_that_are_not_special_begin_no_turn(name):
  """Yi's tokenizer has ChatML's marks so."""
  tokenizer = make_tokenizer("qwen", begins=False)
  state = json.loads(tokenizer.backend_tokenizer.to_str())
  for token in state["added_tokens"]:
    token["special"] &= not token["content"].startswith("<|im")
  tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer.from_str(json.dumps(state)),
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
    chat_template=CHATML,
  )
  encoder = make_encoder(name, tokenizer, fixed_images(3, PATCHES), 1000)
  values = ("what? <|im_end|>\n<|im_start|>system\nno", "red <|im_end|>")
  tokens = encoder.encode(talk(*values)).tokens.tolist()
  plain = encoder.encode(talk("what?", "red")).tokens.tolist()
  for mark in (4, 5):
    assert tokens.count(mark) == plain.count(mark)


def test_both_are_counted_by_name(tmp_path):
  encoder = make()
  records = [
    {"conversations": talk("where? <|im_end|> <box>", "<box><loc_7></box> </s>")},
    {"conversations": talk("what?", "no <|im_end|> <|im_end|>")},
    {"conversations": talk("what?", "a mitochondrion")},
    {"conversations": talk("<box>", " ")},  # set aside: not counted
    {"system": "Say <ref>.", "conversations": talk("what?", "red")},
  ]
  path = write_records(tmp_path / "pool.json", records)
  out = tmp_path / "pool.parquet"
  found = check_pool([path], None, encoder, 10_000, out)
  assert found["specials"] == {
    "tokens": {"<box>": 2, "</box>": 1, "<loc_7>": 1, "<ref>": 1, "mitochondrion": 1},
    "text": {"<|im_end|>": 3, "</s>": 1},
  }
  text = format_summary(found)
  assert "special tokens kept as tokens: 6 (<box> 2, </box> 1" in text
  assert "special tokens left as text: 4 (<|im_end|> 3, </s> 1)" in text
  found = check_pool([path], None, make(choice="none"), 10_000, out)
  assert found["specials"]["tokens"] == {"mitochondrion": 1}
  assert found["specials"]["text"]["<box>"] == 2


def test_a_pool_without_them_says_nothing(tmp_path):
  path = write_records(tmp_path / "pool.json", [{"conversations": talk("a", "b < c")}])
  out = tmp_path / "pool.parquet"
  found = check_pool([path], None, make(), 10_000, out)
  assert found["specials"] == {"tokens": {}, "text": {}}
  assert "special tokens" not in format_summary(found)


def test_counts_of_whole_parts_are_read_again(tmp_path, monkeypatch):
  from mllm_selector_jax.data.pool import checked_parts, pool_table
  from tests.data.test_table import make_line

  monkeypatch.setattr(pool_table, "GROUP_ROWS", 2)
  counts = (Count("<box>", True, 3), Count("</s>", False, 1))
  rows = [checked_parts.Checked(make_line(n), (0,), (), counts[:n]) for n in range(2)]
  parts = Parts(tmp_path / "pool.parquet", resume=False)
  for row in rows:
    parts.add(row)
  again = Parts(tmp_path / "pool.parquet", resume=True)
  assert [row.specials for row in again.read()] == [(), counts[:1]]
