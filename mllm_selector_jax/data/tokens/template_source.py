"""A named template as the chat template of the models that were tuned with it.

Whoever asks such a model through transformers, or tunes it on, then writes the
tokens that we wrote, and learns from the ones that we learned from.
"""

import itertools
import string
from typing import Any, NamedTuple

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.tokens.chat_template import ChatTemplate
from mllm_selector_jax.data.tokens.conversation import MARK, Encoder
from mllm_selector_jax.data.tokens.conversation_templates import Template
from mllm_selector_jax.types import ImageOptions, ImageTokens

# What a message says and how many images it brings, in both forms that messages
# have. As in training, an image stands first and its question on a new line.
_SOURCE = string.Template("""\
{%- set turn = namespace(system=$system, text='', said='', images=0, later=false) -%}
$begin
{%- for message in messages -%}
  {%- set turn.text = '' -%}
  {%- if message['role'] == 'user' -%}
    {%- set turn.images = 0 -%}
  {%- endif -%}
  {%- if message['content'] is string -%}
    {%- set turn.text = message['content'] -%}
  {%- else -%}
    {%- for part in message['content'] -%}
      {%- if part['type'] == 'image' -%}
        {%- set turn.images = turn.images + 1 -%}
      {%- elif part['type'] == 'text' -%}
        {%- set turn.text = turn.text + part['text'] -%}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if message['role'] == 'system' -%}
    {%- set turn.system = turn.text -%}
  {%- elif message['role'] == 'user' -%}
    {%- set turn.images = turn.images + turn.text.count($mark) -%}
    {%- if turn.images -%}
      {%- set turn.text = turn.text.replace($mark, '') | trim -%}
      {%- if turn.text -%}
        {%- set turn.text = '\\n' + turn.text -%}
      {%- endif -%}
    {%- endif -%}
    $ask
    {%- set turn.later = true -%}
  {%- else -%}
    $answer
    {%- if turn.text | trim -%}
      {%- generation -%}{{ turn.said }}{%- endgeneration -%}
    {%- else -%}
      {{ turn.said }}
    {%- endif -%}
    $tail
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}$prompt{%- endif -%}
""")
# Two rounds by which tokens are compared; the accent is no token with its blank.
_QUESTIONS = ("What is it?", "\u00c9t and now?")
_ANSWERS = ("A star.", "\u00e9 no, two.")


class Blanks(NamedTuple):
  """What depends on where a tokenizer puts a blank of its own.

  Attributes:
    begun: written after the BOS, where ours is put before a row's first text.
    imaged: written after an image, as there.
    inside: whether the blank before an answer counts as learned.
  """

  begun: str = ""
  imaged: str = ""
  inside: bool = True


def make_chat_template(encoder: Encoder) -> tuple[str | None, bool]:
  """Jinja that writes and marks what the encoder does.

  Turns that spell a special token, which are text to us, and answers whose first
  letters a tokenizer would join with what stands before, are as transformers has
  them.

  Returns:
    The source, None for the tokenizer's own as it is; and whether transformers
    gives a small conversation the very tokens and mask that the encoder does.
  """
  template, tokenizer = encoder.template, encoder.tokenizer
  if isinstance(template, ChatTemplate):
    source = template.read_source(tokenizer)
    if template.system:
      source = _add_system(source, template.system)
    return (None if source == tokenizer.get_chat_template() else source), True
  one = ImageOptions(1, (0.0,) * 3, (1.0,) * 3, grid=1)
  images = BaseImages(one, ImageTokens(encoder.image_token))
  small = Encoder(tokenizer, template, images, 4096)
  mark = tokenizer.convert_ids_to_tokens(encoder.image_token)
  begins = small.encode(_talk(1, None)).tokens[0] == tokenizer.bos_token_id
  choices = itertools.product((True, False), ("", " "), ("", " "))
  sources = [
    _write_source(template, mark, bool(begins), Blanks(begun, imaged, inside))
    for inside, begun, imaged in choices
  ]
  exact = next((source for source in sources if _is_exact(small, source, mark)), None)
  return exact or sources[0], exact is not None


def _quote(text: str) -> str:
  """A text as a string of Jinja's."""
  text = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
  return f"'{text}'"


def _put(*values: str) -> str:
  """Puts out values of Jinja's, one after the other."""
  values = tuple(value for value in values if value != "''")
  return "{{ " + " + ".join(values) + " }}" if values else ""


def _when(condition: str, text: str) -> str:
  return f"{{%- if {condition} -%}}{text}{{%- endif -%}}" if text else ""


def _write_source(template: Template, mark: str, begins: bool, blanks: Blanks) -> str:
  """The template as Jinja, its blanks put so."""
  stem = template.assistant.rstrip(" ")
  blank = _quote(template.assistant[len(stem) :])
  if not template.asks:
    # The answer is the first text, or the first after the image; where a blank
    # stands already, a tokenizer puts no other.
    places = ["not turn.images and not turn.system"] * bool(blanks.begun)
    places += ["turn.images"] * bool(blanks.imaged)
    place = " or ".join(places) or "false"
    blank = f"(' ' if ({place}) and not turn.text.startswith(' ') else '')"
  said = [blank] if blanks.inside else []
  said += ["turn.text", _quote(template.gap + template.closing)]
  said += ["eos_token"] if template.ends else []
  said_text = " + ".join(value for value in said if value != "''")
  answer = _put(_quote(stem)) + ("" if blanks.inside else _put(blank))
  return _SOURCE.substitute(
    system=_quote(template.system),
    begin="{{ bos_token }}" if begins else "",
    mark=_quote(mark),
    ask=_write_question(template, mark, blanks),
    answer=f"{answer}{{%- set turn.said = {said_text} -%}}",
    tail=_put(_quote(template.tail)),
    prompt=_put(_quote(stem)),
  )


def _write_question(template: Template, mark: str, blanks: Blanks) -> str:
  """What a user's message becomes."""
  first = "not turn.later" if template.asks else "turn.system and not turn.later"
  user = _put(_quote(template.user))
  frame = [_quote(text) for text in template.system_frame]
  system = _when(
    "turn.system and not turn.later", _put(frame[0], "turn.system", frame[1])
  )
  begin = _when(first, _put(_quote(blanks.begun)))
  begin += _when("turn.later", "{{ bos_token }}") if template.begins else ""
  begin += user + system if template.inside else system + user
  begin += _put(f"{_quote(mark)} * turn.images")
  if not template.asks:
    return begin
  blank = _when("turn.images and turn.text", _put(_quote(blanks.imaged)))
  return begin + blank + "{{ turn.text }}"


def _add_system(source: str, system: str) -> str:
  """A chat template, given a system message where the messages have none."""
  text = _quote(system)
  # As text or as a list of parts, whichever the other messages are.
  return (
    "{%- if messages and messages[0]['role'] != 'system' -%}"
    "{%- if messages[0]['content'] is string -%}"
    f"{{%- set messages = [{{'role': 'system', 'content': {text}}}] + messages -%}}"
    "{%- else -%}"
    "{%- set messages = [{'role': 'system', 'content': [{'type': 'text', 'text':"
    f" {text}}}]}}] + messages -%}}"
    "{%- endif -%}{%- endif -%}" + source
  )


def _talk(rounds: int, image: int | None) -> list[dict[str, str]]:
  """The small conversation as a record has it."""
  talk = []
  for turn in range(rounds):
    mark = f"{MARK}\n" if turn == image else ""
    talk += [
      {"from": "human", "value": mark + _QUESTIONS[turn]},
      {"from": "gpt", "value": _ANSWERS[turn]},
    ]
  return talk


def _is_exact(encoder: Encoder, source: str, mark: str) -> bool:
  """Whether transformers has our tokens and our mask, with an image and without."""
  rounds = 2 if encoder.template.asks else 1
  for image, listed in itertools.product((None, 0), (True, False)):
    talk = _talk(rounds, image)
    ours = encoder.encode(talk, [] if image is None else [(1, 1)])
    theirs = encoder.tokenizer.apply_chat_template(
      [_as_message(turn, mark, listed) for turn in talk],
      chat_template=source,
      return_dict=True,
      return_assistant_tokens_mask=True,
    )
    if list(theirs["input_ids"]) != ours.tokens.tolist():
      return False
    if list(map(bool, theirs["assistant_masks"])) != ours.supervised.tolist():
      return False
  return True


def _as_message(turn: dict[str, str], mark: str, listed: bool) -> dict[str, Any]:
  role = "user" if turn["from"] == "human" else "assistant"
  text = turn["value"]
  if not listed:
    return {"role": role, "content": text.replace(MARK, mark)}
  parts = [{"type": "image"}] if MARK in text else []
  text = text.removeprefix(f"{MARK}\n")
  return {"role": role, "content": [*parts, {"type": "text", "text": text}]}
