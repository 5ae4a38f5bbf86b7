"""A chat template's date is the run's, whatever day it is."""

import datetime
import json
import os
import subprocess
import sys

import jinja2
import pytest
from transformers.utils import chat_template_utils

from mllm_selector_jax.data.tokens import chat_date, template_source
from mllm_selector_jax.data.tokens.conversation import make_encoder
from mllm_selector_jax.types import InputError
from tests.data.test_conversation import talk
from tests.data.test_templates import CHATML, PATCHES, messages, oracle
from tests.fixed_images import ONE_IMAGE, fixed_images
from tests.llama_like import make_tokenizer
from tests.real_processes import ROOT

# The parts of Llama 3.1's that a conversation without tools goes through, with its
# names of tokens and the marks of what is learned.
LLAMA = r"""
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}

{#- This block extracts the system message, so we can slot it into the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{#- System message #}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}

{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}{{- message['content'] | trim + '<|eot_id|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
MARKS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
VALUES = ("<image>\nwhat colour?", "red", "and?", "no")


class Clock(datetime.datetime):
  """Another day than any date of a test."""

  @classmethod
  def now(cls, tz=None):
    return cls(2031, 3, 9, 14, 5, 7)


@pytest.fixture
def other_day(monkeypatch):
  """Lets transformers render its templates on that day."""
  monkeypatch.setattr(chat_template_utils, "datetime", Clock)


def make(source=LLAMA, system=None, **options):
  tokenizer = make_tokenizer("qwen", begins=False)
  tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
  tokenizer.chat_template = source
  return make_encoder(
    "chat", tokenizer, fixed_images(3, PATCHES), 1000, system, **options
  )


def text_of(encoder):
  return encoder.tokenizer.decode(encoder.encode(talk(*VALUES), ONE_IMAGE).tokens)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_same_rows_on_any_day(monkeypatch, system):
  before = make(system=system)
  assert "Today Date: 26 Jul 2024\n\n" + (system or "") in text_of(before)
  monkeypatch.setattr(chat_template_utils, "datetime", Clock)
  source = before.tokenizer.chat_template
  (live, _) = oracle(before.tokenizer, source, messages(VALUES, system))
  # The clock is indeed another one, and the template asks it.
  assert "Today Date: 09 Mar 2031" in before.tokenizer.decode(live)
  after = make(system=system)
  assert text_of(after) == text_of(before)
  prompts = [one.prompt("what?", ONE_IMAGE).tokens.tolist() for one in (after, before)]
  assert prompts[0] == prompts[1]


@pytest.mark.parametrize("date", ["2025-01-31", "2025-01-31T09:05"])
def test_a_date_that_is_given(other_day, date):
  assert "Today Date: 31 Jan 2025\n" in text_of(make(chat_date=date))


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_export_is_asked_with_the_date_of_its_rows(other_day, system):
  encoder = make(system=system)
  source, exact = template_source.make_chat_template(encoder)
  assert exact and source.endswith(LLAMA)
  sample = encoder.encode(talk(*VALUES), ONE_IMAGE)
  ids, mask = oracle(encoder.tokenizer, source, messages(VALUES))
  assert ids.tolist() == sample.tokens.tolist()
  assert mask.tolist() == sample.supervised.tolist()
  # An export as the next base: its date is fixed already.
  again = make(source, chat_date="2030-01-01")
  assert text_of(again) == text_of(encoder)
  assert not chat_date.asks_date(source)
  assert template_source.make_chat_template(again) == (None, True)


def test_a_template_without_a_date_is_left_as_it_is():
  assert chat_date.fix_date(CHATML, datetime.datetime(2024, 7, 26)) == CHATML
  encoder = make(CHATML)
  assert template_source.make_chat_template(encoder) == (None, True)


WHEN = datetime.datetime(2024, 7, 6, 4, 5, 9, 12)


@pytest.mark.parametrize(
  "format",
  [
    "%d %b %Y",
    "%Y-%m-%d",
    "%A, %B %-d, %Y",
    "%H:%M:%S",
    "%d%%d %% %Y",
    "%e/%y",
    "%j %c",
  ]
  + ["%I:%M %p", "%D %T", "no date", "%F week %V day %u", "100%"],
)
def test_the_macro_writes_what_strftime_does(format):
  for source in (
    f"{{{{ strftime_now('{format}') }}}}",
    f"\n  {{% set x = '{format}' %}}\n  {{{{ strftime_now(x) ~ '!' }}}}\nend",
  ):
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["strftime_now"] = WHEN.strftime
    wanted = environment.from_string(source).render()
    fixed = chat_date.fix_date(source, WHEN)
    environment.globals["strftime_now"] = Clock.now().strftime
    assert environment.from_string(fixed).render() == wanted
    # As vLLM and llama.cpp do, where no clock is known to the template at all.
    del environment.globals["strftime_now"]
    assert environment.from_string(fixed).render() == wanted


@pytest.mark.parametrize("value", ["26 Jul 2024", "", None, 5, "2024-13-01"])
def test_a_wrong_date_is_named(value):
  with pytest.raises(InputError, match=r"model\.chat_date=.*2024-07-26"):
    chat_date.read_date(value)


PROGRAM = """
import datetime, json, sys
from transformers.utils import chat_template_utils

class Clock(datetime.datetime):
  @classmethod
  def now(cls, tz=None):
    return cls.fromisoformat(sys.argv[1])

chat_template_utils.datetime = Clock
from tests.data.test_chat_date import VALUES, make
from tests.data.test_conversation import talk
from tests.fixed_images import ONE_IMAGE, fixed_images

print(json.dumps(make().encode(talk(*VALUES), ONE_IMAGE).tokens.tolist()))
"""


def test_processes_of_different_days_agree():
  found = []
  for day in ("2024-12-31T23:59:59", "2025-01-01T00:00:01"):
    done = subprocess.run(
      [sys.executable, "-c", PROGRAM, day],
      capture_output=True,
      text=True,
      check=True,
      cwd=ROOT,
      env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found.append(json.loads(done.stdout))
  assert found[0] == found[1] == make().encode(talk(*VALUES), ONE_IMAGE).tokens.tolist()
