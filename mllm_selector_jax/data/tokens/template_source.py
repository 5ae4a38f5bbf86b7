"""Writes a named template as a Jinja chat template, to be stored with a tuned model.

With it, transformers encodes conversations to the same tokens with which the model was
tuned here, and masks the same tokens if the model is tuned further.
"""

import itertools
import string
from typing import Any, NamedTuple

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.tokens.chat_template import ChatTemplate
from mllm_selector_jax.data.tokens.conversation import MARK, Encoder
from mllm_selector_jax.data.tokens.conversation_templates import Template
from mllm_selector_jax.types import ImageOptions, ImageTokens

# Reads text and number of images of a message, which may be a text or a list of parts.
# As in training, an image comes first, and its question is on a new line.
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
# Two rounds for which our tokens are compared with those of transformers. The
# accented letters are unlikely to share a token with the blank before them.
_QUESTIONS = ("What is it?", "\u00c9t and now?")
_ANSWERS = ("A star.", "\u00e9 no, two.")


class Blanks(NamedTuple):
  """Where a tokenizer that adds blanks of its own needs them in the Jinja template.

  Attributes:
    begun: the blank to write after BOS, before the first text of a row.
    imaged: the blank to write after an image.
    inside: whether the blank before an answer is learned.
  """

  begun: str = ""
  imaged: str = ""
  inside: bool = True


def make_chat_template(encoder: Encoder) -> tuple[str | None, bool]:
  """Makes a chat template that writes and masks the same tokens as the encoder.

  Two cases differ: transformers recognises special tokens in the text of turns, and a
  tokenizer may join the first letters of an answer with the text before it.

  Returns:
    The Jinja source, or None if the tokenizer's own template is right as it is; and
    whether tokens and mask of a small conversation are exactly those of the encoder.
  """
  template, tokenizer = encoder.template, encoder.tokenizer
  if isinstance(template, ChatTemplate):
    source = template.read_source(tokenizer)
    if template.system:
      source = _add_system(source, template.system)
    return (None if source == tokenizer.get_chat_template() else source), True
  one = ImageOptions(1, (0.0,) * 3, (1.0,) * 3, grid=1)
  tokens = encoder.images.tokens
  single = tokens if tokens.templated else ImageTokens(tokens.written[0])
  small = Encoder(tokenizer, template, BaseImages(one, single), 4096)
  mark = "".join(tokenizer.convert_ids_to_tokens(list(tokens.written)))
  begins = small.encode(_talk(1, None)).tokens[0] == tokenizer.bos_token_id
  choices = itertools.product((True, False), ("", " "), ("", " "))
  sources = [
    _write_source(template, mark, bool(begins), Blanks(begun, imaged, inside))
    for inside, begun, imaged in choices
  ]
  exact = next((source for source in sources if _is_exact(small, source, mark)), None)
  return exact or sources[0], exact is not None


def _quote(text: str) -> str:
  """Writes a text as a Jinja string literal."""
  text = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
  return f"'{text}'"


def _put(*values: str) -> str:
  """Writes Jinja expressions to be output one after another."""
  values = tuple(value for value in values if value != "''")
  return "{{ " + " + ".join(values) + " }}" if values else ""


def _when(condition: str, text: str) -> str:
  """Writes Jinja source that is used only under a condition."""
  return f"{{%- if {condition} -%}}{text}{{%- endif -%}}" if text else ""


def _write_source(template: Template, mark: str, begins: bool, blanks: Blanks) -> str:
  """Writes the template as Jinja.

  Args:
    template: the named template.
    mark: the text of what stands for an image.
    begins: whether a row begins with the BOS token.
    blanks: the blanks that this tokenizer needs.
  """
  stem = template.assistant.rstrip(" ")
  blank = _quote(template.assistant[len(stem) :])
  if not template.asks:
    # The answer is the first text of the row, or the first after the image. A tokenizer
    # adds no blank to a text that begins with one.
    conditions = ["not turn.images and not turn.system"] * bool(blanks.begun)
    conditions += ["turn.images"] * bool(blanks.imaged)
    condition = " or ".join(conditions) or "false"
    blank = f"(' ' if ({condition}) and not turn.text.startswith(' ') else '')"
  learned = [blank] if blanks.inside else []
  learned += ["turn.text", _quote(template.gap + template.closing)]
  learned += ["eos_token"] if template.ends else []
  learned_text = " + ".join(value for value in learned if value != "''")
  answer = _put(_quote(stem)) + ("" if blanks.inside else _put(blank))
  return _SOURCE.substitute(
    system=_quote(template.system),
    begin="{{ bos_token }}" if begins else "",
    mark=_quote(mark),
    ask=_write_question(template, mark, blanks),
    answer=f"{answer}{{%- set turn.said = {learned_text} -%}}",
    tail=_put(_quote(template.tail)),
    prompt=_put(_quote(stem)),
  )


def _write_question(template: Template, mark: str, blanks: Blanks) -> str:
  """Writes the Jinja source for a user's message."""
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
  """Changes a chat template to add a system message if the messages have none."""
  text = _quote(system)
  # The message is a text or a list of parts, like the other messages.
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
  """Returns the small conversation in LLaVA's format."""
  talk = []
  for turn in range(rounds):
    mark = f"{MARK}\n" if turn == image else ""
    talk += [
      {"from": "human", "value": mark + _QUESTIONS[turn]},
      {"from": "gpt", "value": _ANSWERS[turn]},
    ]
  return talk


def _is_exact(encoder: Encoder, source: str, mark: str) -> bool:
  """Returns whether transformers gives our tokens and mask, with and without image."""
  rounds = 2 if encoder.template.asks else 1
  for image, as_lists in itertools.product((None, 0), (True, False)):
    talk = _talk(rounds, image)
    ours = encoder.encode(talk, [] if image is None else [(1, 1)])
    theirs = encoder.tokenizer.apply_chat_template(
      [_as_message(turn, mark, as_lists) for turn in talk],
      chat_template=source,
      return_dict=True,
      return_assistant_tokens_mask=True,
    )
    if list(theirs["input_ids"]) != ours.tokens.tolist():
      return False
    if list(map(bool, theirs["assistant_masks"])) != ours.supervised.tolist():
      return False
  return True


def _as_message(turn: dict[str, str], mark: str, as_lists: bool) -> dict[str, Any]:
  role = "user" if turn["from"] == "human" else "assistant"
  text = turn["value"]
  if not as_lists:
    return {"role": role, "content": text.replace(MARK, mark)}
  parts = [{"type": "image"}] if MARK in text else []
  text = text.removeprefix(f"{MARK}\n")
  return {"role": role, "content": [*parts, {"type": "text", "text": text}]}
