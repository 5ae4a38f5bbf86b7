"""Follows a tokenizer's own chat template, without rendering the turns themselves.

The template renders placeholders. The text around them is the frame. The text that
`{% generation %}` encloses is learned; where a template has no such tags, what is
learned is found by rendering beginnings (learned_spans.py). In this way a turn that
contains the text of a frame token stays ordinary text, and the rows of a pool need not
be rendered one by one.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mllm_selector_jax.data.tokens.chat_date import DEFAULT, fix_date, read_date
from mllm_selector_jax.data.tokens.chat_messages import make_messages
from mllm_selector_jax.data.tokens.conversation_templates import (
  ANSWER,
  IMAGE,
  IMAGE_LETTER,
  QUESTION,
  SYSTEM,
  TEXT_LETTER,
  TOKEN,
  TemplatePart,
  list_question,
  split_frame,
)
from mllm_selector_jax.data.tokens.learned_spans import find_learned_spans
from mllm_selector_jax.data.tokens.template_bounds import render_template
from mllm_selector_jax.types import ImageTokens, InputError

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
_PICTURED = IMAGE_LETTER + TEXT_LETTER  # a question that begins with an image

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

  def bind(self, tokenizer: Any, images: ImageTokens) -> "ChatLayout":
    """Returns the layout of the rows that the tokenizer's chat template writes.

    Args:
      tokenizer: a fast tokenizer of transformers.
      images: the ids that stand for an image.

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
    return ChatLayout(tokenizer, source, images, self.system)

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

  def __init__(self, tokenizer: Any, source: str, images: ImageTokens, system: str):
    self._tokenizer = tokenizer
    self._source = source
    self._image_token = images.image
    self._image = "".join(tokenizer.convert_ids_to_tokens(list(images.written)))
    self._system = system
    self._marks_learned = bool(_GENERATION.search(source))
    special = {*tokenizer.all_special_ids}
    # An image is what the template writes for it, with the marks around its token.
    self._specials = {self._image: images.image} | {
      added.content: token
      for token, added in tokenizer.added_tokens_decoder.items()
      if (added.special or token in special)
      and token != images.image
      and added.content != self._image
    }
    self.parts = functools.lru_cache(maxsize=256)(self._write)
    # Multimodal templates expect messages as lists of parts, others as text.
    self._uses_lists = True
    try:
      self._write((_PICTURED,))
    except InputError:
      self._uses_lists = False
      self._write((_PICTURED,))
    self.specials = self._find_written()
    self.breaks_line = not self._uses_lists
    try:
      self._write((TEXT_LETTER,), True)
      self.takes_system = True
    except InputError:
      self.takes_system = False
    self.end, self.closing = self._find_end()

  def prompt(self, letters: str) -> tuple[TemplatePart, ...]:
    """The parts of a first question, up to where its answer is to begin."""
    parts = self.parts((letters,))
    return parts[: next(n for n, part in enumerate(parts) if part.learned)]

  def check(self, write: Write) -> None:
    """Compares our tokens of a small conversation with those of transformers.

    Args:
      write: encodes a row from its parts, questions and answers.

    Raises:
      InputError: the tokens differ, because the template changes the text of turns by
        more than stripping blanks.
    """
    for first in (TEXT_LETTER, _PICTURED):
      letters = (first, TEXT_LETTER)
      ours = write(self.parts(letters), _QUESTIONS, _ANSWERS)
      messages = self._messages(letters, [*_QUESTIONS], [*_ANSWERS])
      # As `apply_chat_template` does, which would render without bounds.
      text, _ = self._render(messages, prompt=False)
      theirs = self._tokenizer(text, add_special_tokens=False)
      closed, _ = self._find_spans(messages, _ANSWERS)
      added = closed[len(text) :]
      ends = [self._specials[added]] if added else []
      if ours != [*theirs["input_ids"], *ends]:
        raise InputError(
          "model.conversation='chat': the base's chat template changes the text of the"
          " turns, and cannot be followed." + _OTHER
        )

  def _find_written(self) -> tuple[int, ...]:
    """Finds the tokens that the template writes, and adds them to `_specials`.

    Returns:
      Their ids, those of added tokens other than the image's.
    """
    texts = [self._source]
    for first in (TEXT_LETTER, _PICTURED):
      messages = self._messages((first, TEXT_LETTER), _QUESTIONS, _ANSWERS)
      texts.append(self._render(messages, prompt=False)[0])
    written = []
    for token, added in self._tokenizer.added_tokens_decoder.items():
      name = added.content
      # Added tokens that are not special can be ordinary words. Only bracketed ones are
      # taken here, and those that strip blanks around them are left to the tokenizer.
      strips = added.lstrip or added.rstrip or added.single_word
      is_mark = name in self._specials or (name[:1] in ("<", "[", "|") and not strips)
      if token == self._image_token or name == self._image or not is_mark:
        continue
      if any(name in text for text in texts):
        self._specials[name] = token
        written.append(token)
    return tuple(written)

  def _find_end(self) -> tuple[int | None, str]:
    """Returns the id that ends an answer, or None, and the text that ends an answer."""
    parts = self._write((TEXT_LETTER,))
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
    letters: Sequence[str],
    questions: Sequence[str],
    answers: Sequence[str],
    system_text: str = "",
  ) -> list[dict[str, Any]]:
    mark = None if self._uses_lists else self._image
    system = system_text or self._system
    return make_messages(letters, questions, answers, system, mark)

  def _render(self, messages: list, prompt: bool) -> tuple[str, list]:
    """Renders messages to text.

    Args:
      messages: the conversation.
      prompt: whether the text ends where the next answer begins.

    Returns:
      The text, and start and stop of each span in it that is learned.
    """
    try:
      text, spans = render_template(
        self._source,
        messages,
        prompt,
        self._marks_learned,
        self._tokenizer.special_tokens_map,
      )
    # A template is a program, and may raise any exception.
    except Exception as error:
      raise InputError(
        f"model.conversation='chat': the base's chat template fails: {error}." + _OTHER
      ) from error
    return text, spans

  def _find_spans(
    self, messages: list, answers: Sequence[str]
  ) -> tuple[str, list[tuple[int, int]]]:
    """Renders messages, and finds what of the text is learned."""
    text, spans = self._render(messages, prompt=False)
    if self._marks_learned:
      return text, spans
    try:
      return find_learned_spans(
        lambda some, prompt: self._render(list(some), prompt)[0],
        messages,
        answers,
        self._specials,
      )
    except ValueError as error:
      raise InputError(
        "model.conversation='chat': the base's chat template does not mark what is"
        f" learned, and rendering beginnings does not show it: {error}. Enclose the"
        " assistant's text, and the token that ends it, in {% generation %} and"
        " {% endgeneration %}." + _OTHER
      ) from error

  def _write(
    self, letters: tuple[str, ...], system: bool = False
  ) -> tuple[TemplatePart, ...]:
    # Every turn's text is a numbered slot, in the order in which they stand.
    rounds, numbers = len(letters), itertools.count()
    slots: list[TemplatePart] = [TemplatePart(SYSTEM)] * system
    for turn, asked in enumerate(letters):
      asking = [part for part in list_question(turn, asked) if part.kind == QUESTION]
      slots += [*asking, TemplatePart(ANSWER, turn)]
    texts = {part: _SLOT.format(next(numbers)) for part in slots}
    answers = [text for part, text in texts.items() if part.kind == ANSWER]
    messages = self._messages(
      letters,
      [text for part, text in texts.items() if part.kind == QUESTION],
      answers,
      texts.get(TemplatePart(SYSTEM), ""),
    )
    text, spans = self._find_spans(messages, answers)
    found = [int(match[2]) for match in _SLOTS.finditer(text)]
    if found != [*range(len(slots))] or len(spans) != rounds:
      raise InputError(
        "model.conversation='chat': the base's chat template does not write each turn"
        " exactly once and in order, or does not enclose the assistant's turns in"
        " {% generation %}." + _OTHER
      )
    # The blank before an answer is learned, since a prompt ends before it.
    spans = [(len(text[:start].rstrip(" ")), stop) for start, stop in spans]
    parts = tuple(self._read(text, spans, slots))
    asked, _ = self._render(messages[: -2 * rounds + 1 or None], prompt=True)
    if asked.rstrip(" ") != text[: spans[0][0]]:
      raise InputError(
        "model.conversation='chat': the text with which the base's chat template asks"
        " for an answer differs from the text before {% generation %}." + _OTHER
      )
    written = [part.turn for part in parts if part.kind == IMAGE]
    counts = [asked.count(IMAGE_LETTER) for asked in letters]
    if written != [turn for turn, count in enumerate(counts) for _ in range(count)]:
      images = "one image" if sum(counts) == 1 else f"{sum(counts)} images"
      raise InputError(
        f"model.conversation='chat': the base's chat template writes {len(written)}"
        f" {self._image} for {images}." + _OTHER
      )
    return parts

  def _read(
    self, text: str, spans: list[tuple[int, int]], slots: Sequence[TemplatePart]
  ) -> Iterator[TemplatePart]:
    """The rendered text as parts."""
    place = 0
    for turn, (start, stop) in enumerate(spans):
      yield from self._read_span(text[place:start], turn, False, slots)
      yield from self._read_span(text[start:stop], turn, True, slots)
      place = stop
    yield from self._read_span(text[place:], len(spans) - 1, False, slots)

  def _read_span(
    self, text: str, turn: int, learned: bool, slots: Sequence[TemplatePart]
  ) -> Iterator[TemplatePart]:
    place = 0
    for match in _SLOTS.finditer(text):
      yield from self._split(text[place : match.start()], turn, learned)
      slot = slots[int(match[2])]
      if (slot.kind == ANSWER) != learned:
        raise InputError(
          "model.conversation='chat': {% generation %} in the base's chat template"
          " must enclose the assistant's turns, and only those." + _OTHER
        )
      yield slot._replace(
        turn=turn, learned=learned, left=not match[1], right=not match[3]
      )
      place = match.end()
    yield from self._split(text[place:], turn, learned)

  def _split(self, text: str, turn: int, learned: bool) -> Iterator[TemplatePart]:
    for part in split_frame(text, self._specials, turn, learned):
      if part.kind == TOKEN and part.token == self._image_token:
        yield TemplatePart(IMAGE, turn)
      elif part.kind == TOKEN or part.text:
        yield part
