"""Follows a tokenizer's own chat template, without rendering the turns themselves.

The template renders placeholders. The text around them is the frame, and the text that
`{% generation %}` encloses is learned. In this way a turn that contains the text of a
frame token stays ordinary text, and the rows of a pool need not be rendered one by one.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mllm_selector_jax.data.tokens.chat_date import DEFAULT, fix_date, read_date
from mllm_selector_jax.data.tokens.conversation_templates import (
  ANSWER,
  IMAGE,
  QUESTION,
  SYSTEM,
  TOKEN,
  TemplatePart,
  split_frame,
)
from mllm_selector_jax.types import InputError

# The placeholder of a turn, with an em space on each side. If an em space is missing
# from the rendered text, the template strips blanks from its turns.
_SLOT = "\u2003\ue000{}\ue001\u2003"
_SLOTS = re.compile("(\u2003?)\ue000([0-9]+)\ue001(\u2003?)")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_OTHER = (
  " Correct chat_template.jinja in the base's directory, or choose another"
  " model.conversation."
)
# A conversation of two rounds, for which our tokens are compared with transformers'.
_QUESTIONS = ("What is it?", " And  now? ")
_ANSWERS = ("A star.", " No, two. ")

# Encodes a row from its parts, questions and answers.
Write = Callable[[Sequence[TemplatePart], Sequence[str], Sequence[str]], list[int]]


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
  """The chat template of the tokenizer that it is bound to.

  Attributes:
    system: the text of a system message; "" gives the template no system message, so
      that it writes its own default, if it has one.
    date: the date that the template writes if it asks for the time; see `chat_date`.
  """

  system: str = ""
  date: str = DEFAULT
  asks = True

  def bind(self, tokenizer: Any, image_token: int) -> "ChatLayout":
    """Returns the layout of the rows that the tokenizer's chat template writes.

    Args:
      tokenizer: a fast tokenizer of transformers.
      image_token: the id that stands for a patch of the image.

    Raises:
      InputError: the tokenizer has no chat template, or the template does not mark what
        is learned.
    """
    if not tokenizer.chat_template:
      raise InputError(
        "model.conversation='chat': the base's tokenizer has no chat template. Put a"
        " chat_template.jinja into its directory, or choose another template."
      )
    source = self.read_source(tokenizer)
    if not _GENERATION.search(source):
      raise InputError(
        "model.conversation='chat': the base's chat template does not mark what is"
        " learned. Enclose the assistant's text, and the token that ends it, in"
        " {% generation %} and {% endgeneration %}." + _OTHER
      )
    return ChatLayout(tokenizer, source, image_token, self.system)

  def read_source(self, tokenizer: Any) -> str:
    """Returns the tokenizer's chat template, changed to write the fixed `date`."""
    return fix_date(tokenizer.get_chat_template(), read_date(self.date))

  def breaks(self, turn: int, question: str, answer: str) -> bool:
    """Returns False, since LLaVA does not use chat templates; see `Template.breaks`."""
    return False


class ChatLayout:
  """Divides the rows of a chat template into parts; attributes as `TemplateLayout`."""

  adds_begin = False
  apart = False

  def __init__(self, tokenizer: Any, source: str, image_token: int, system: str):
    self._tokenizer = tokenizer
    self._source = source
    self._image_token = image_token
    self._image = tokenizer.convert_ids_to_tokens(image_token)
    self._system = system
    special = {*tokenizer.all_special_ids, image_token}
    self._specials = {
      added.content: token
      for token, added in tokenizer.added_tokens_decoder.items()
      if added.special or token in special
    }
    self.parts = functools.lru_cache(maxsize=256)(self._write)
    # Multimodal templates expect messages as lists of parts, others as text.
    self._uses_lists = True
    try:
      self._write(1, 0)
    except InputError:
      self._uses_lists = False
      self._write(1, 0)
    self.specials = self._find_written()
    self.breaks_line = not self._uses_lists
    try:
      self._write(1, None, True)
      self.takes_system = True
    except InputError:
      self.takes_system = False
    self.end, self.closing = self._find_end()

  def prompt(self, has_image: bool) -> tuple[TemplatePart, ...]:
    """Returns the parts of a first question, up to the beginning of its answer."""
    parts = self.parts(1, 0 if has_image else None)
    return parts[: next(n for n, part in enumerate(parts) if part.learned)]

  def check(self, write: Write) -> None:
    """Compares our tokens of a small conversation with those of transformers.

    Args:
      write: encodes a row from its parts, questions and answers.

    Raises:
      InputError: the tokens differ, because the template changes the text of turns by
        more than stripping blanks.
    """
    for image in (None, 0):
      ours = write(self.parts(2, image), _QUESTIONS, _ANSWERS)
      # transformers' tokenizer writes one token for an image, and not one per patch.
      ours = [
        token
        for index, token in enumerate(ours)
        if token != self._image_token or ours[index - 1] != token
      ]
      messages = self._messages(2, image, [*_QUESTIONS], [*_ANSWERS])
      theirs = self._tokenizer.apply_chat_template(
        messages, chat_template=self._source, return_dict=True
      )
      if ours != list(theirs["input_ids"]):
        raise InputError(
          "model.conversation='chat': the base's chat template changes the text of the"
          " turns, and cannot be followed." + _OTHER
        )

  def _find_written(self) -> tuple[int, ...]:
    """Finds the added tokens that the template writes, and adds them to `_specials`.

    Returns:
      Their ids.
    """
    texts = [self._source]
    for image in (None, 0):
      messages = self._messages(2, image, _QUESTIONS, _ANSWERS)
      texts.append(self._render(messages, prompt=False)[0])
    written = []
    for token, added in self._tokenizer.added_tokens_decoder.items():
      name = added.content
      # Added tokens that are not special can be ordinary words. Only bracketed ones are
      # taken here, and those that strip blanks around them are left to the tokenizer.
      strips = added.lstrip or added.rstrip or added.single_word
      is_mark = name in self._specials or (name[:1] in ("<", "[", "|") and not strips)
      if is_mark and any(name in text for text in texts):
        self._specials[name] = token
        written.append(token)
    return tuple(written)

  def _find_end(self) -> tuple[int | None, str]:
    """Returns the id that ends an answer, or None, and the text that ends an answer."""
    parts = self._write(1, None)
    answer = next(n for n, part in enumerate(parts) if part.kind == ANSWER)
    closing = ""
    for part in parts[answer + 1 :]:
      if part.kind == TOKEN:
        # Blanks before the token do not end an answer.
        return part.token, closing if closing.strip() else ""
      closing += part.text if part.learned else ""
    return None, closing

  def _messages(
    self,
    rounds: int,
    image: int | None,
    questions: Sequence,
    answers: Sequence,
    system_text: str = "",
  ) -> list[dict[str, Any]]:
    """Returns a conversation as messages, in the form that the template expects."""

    def content(text: str, has_image: bool = False) -> Any:
      if not self._uses_lists:
        return f"{self._image}{text}" if has_image else text
      parts = [{"type": "image"}] if has_image else []
      return [*parts, {"type": "text", "text": text}]

    text = system_text or self._system
    system = {"role": "system", "content": content(text)}
    messages = [system] if text else []
    for turn in range(rounds):
      messages += [
        {"role": "user", "content": content(questions[turn], turn == image)},
        {"role": "assistant", "content": content(answers[turn])},
      ]
    return messages

  def _render(self, messages: list, prompt: bool) -> tuple[str, list]:
    """Renders messages to text.

    Args:
      messages: the conversation.
      prompt: whether the text ends where the next answer begins.

    Returns:
      The text, and start and stop of each span in it that is learned.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
      # The function's annotation does not mention the spans.
      rendered: Any = render_jinja_template(
        conversations=[messages],
        chat_template=self._source,
        return_assistant_tokens_mask=True,
        add_generation_prompt=prompt,
        **self._tokenizer.special_tokens_map,
      )
    # A template is a program, and may raise any exception.
    except Exception as error:
      raise InputError(
        f"model.conversation='chat': the base's chat template fails: {error}." + _OTHER
      ) from error
    texts, spans = rendered
    return texts[0], spans[0]

  def _write(
    self, rounds: int, image: int | None, system: bool = False
  ) -> tuple[TemplatePart, ...]:
    """Returns the parts of a row; see `TemplateLayout`.

    Placeholder 2 * n is the question of round n, and placeholder 2 * n + 1 its answer.
    The last one is the row's own system text.
    """
    slots = [_SLOT.format(number) for number in range(2 * rounds)]
    system_slot = _SLOT.format(2 * rounds) if system else ""
    messages = self._messages(rounds, image, slots[::2], slots[1::2], system_slot)
    text, spans = self._render(messages, prompt=False)
    rendered = [int(match[2]) for match in _SLOTS.finditer(text)]
    expected = [2 * rounds] * system + [*range(2 * rounds)]
    if rendered != expected or len(spans) != rounds:
      raise InputError(
        "model.conversation='chat': the base's chat template does not write each turn"
        " exactly once and in order, or does not enclose the assistant's turns in"
        " {% generation %}." + _OTHER
      )
    # The blank before an answer is learned, since a prompt ends before it.
    spans = [(len(text[:start].rstrip(" ")), stop) for start, stop in spans]
    parts = tuple(self._read(text, spans, rounds))
    prompt, _ = self._render(messages[: -2 * rounds + 1 or None], prompt=True)
    if prompt.rstrip(" ") != text[: spans[0][0]]:
      raise InputError(
        "model.conversation='chat': the text with which the base's chat template asks"
        " for an answer differs from the text before {% generation %}." + _OTHER
      )
    images = [part.turn for part in parts if part.kind == IMAGE]
    if images != ([] if image is None else [image]):
      raise InputError(
        f"model.conversation='chat': the base's chat template writes {len(images)}"
        f" {self._image} for one image." + _OTHER
      )
    return parts

  def _read(
    self, text: str, spans: list[tuple[int, int]], rounds: int
  ) -> Iterator[TemplatePart]:
    """Divides the rendered text into parts; `spans` are those that are learned."""
    last_stop = 0
    for turn, (start, stop) in enumerate(spans):
      yield from self._read_span(text[last_stop:start], turn, False, rounds)
      yield from self._read_span(text[start:stop], turn, True, rounds)
      last_stop = stop
    yield from self._read_span(text[last_stop:], len(spans) - 1, False, rounds)

  def _read_span(
    self, text: str, turn: int, learned: bool, rounds: int
  ) -> Iterator[TemplatePart]:
    last_stop = 0
    for match in _SLOTS.finditer(text):
      yield from self._split(text[last_stop : match.start()], turn, learned)
      number = int(match[2])
      kind = ANSWER if number % 2 else QUESTION
      kind = SYSTEM if number == 2 * rounds else kind
      if (kind == ANSWER) != learned:
        raise InputError(
          "model.conversation='chat': {% generation %} in the base's chat template"
          " must enclose the assistant's turns, and only those." + _OTHER
        )
      yield TemplatePart(kind, turn, learned, left=not match[1], right=not match[3])
      last_stop = match.end()
    yield from self._split(text[last_stop:], turn, learned)

  def _split(self, text: str, turn: int, learned: bool) -> Iterator[TemplatePart]:
    for part in split_frame(text, self._specials, turn, learned):
      if part.kind == TOKEN and part.token == self._image_token:
        yield TemplatePart(IMAGE, turn)
      elif part.kind == TOKEN or part.text:
        yield part
