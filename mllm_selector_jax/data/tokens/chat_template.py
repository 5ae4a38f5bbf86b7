"""The tokenizer's own chat template, followed without giving turns to it as text.

It renders placeholders; what stands around them is the frame, and what
`{% generation %}` encloses is learned. So a turn that spells a token of the frame
stays text, and a pool's rows are not rendered one by one.
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

# An em space on each side: where it is missing, the template trims its turns.
_SLOT = "\u2003\ue000{}\ue001\u2003"
_SLOTS = re.compile("(\u2003?)\ue000([0-9]+)\ue001(\u2003?)")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_OTHER = (
  " Mend chat_template.jinja in the base's directory, or choose another"
  " model.conversation."
)
# Two rounds by which our tokens are compared with transformers'.
_QUESTIONS = ("What is it?", " And  now? ")
_ANSWERS = ("A star.", " No, two. ")

Write = Callable[[Sequence[TemplatePart], Sequence[str], Sequence[str]], list[int]]


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
  """Follows the chat template of whichever tokenizer it is bound to.

  Attributes:
    system: text of a system message; without one the template does as it likes.
    date: that the template writes where it asks for the time, see `chat_date`.
  """

  system: str = ""
  date: str = DEFAULT
  asks = True

  def bind(self, tokenizer: Any, image_token: int) -> "ChatLayout":
    """The layout of a tokenizer's rows.

    Raises:
      InputError: it has no chat template, or one that does not say what is learned.
    """
    if not tokenizer.chat_template:
      raise InputError(
        "model.conversation='chat': the base's tokenizer has no chat template. Put a"
        " chat_template.jinja into its directory, or choose another template."
      )
    source = self.read_source(tokenizer)
    if not _GENERATION.search(source):
      raise InputError(
        "model.conversation='chat': the base's chat template does not say what is"
        " learned. Enclose what the assistant says, with the token that ends it, in"
        " {% generation %} and {% endgeneration %}." + _OTHER
      )
    return ChatLayout(tokenizer, source, image_token, self.system)

  def read_source(self, tokenizer: Any) -> str:
    """The tokenizer's chat template, which writes the date that is fixed here."""
    return fix_date(tokenizer.get_chat_template(), read_date(self.date))

  def breaks(self, turn: int, question: str, answer: str) -> bool:
    """Never: LLaVA knows no chat templates."""
    return False


class ChatLayout:
  """A chat template's rows as parts, attributes as a named layout has them."""

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
    self._listed = True
    # Messages as lists of parts, as multimodal templates want them, or as text.
    try:
      self._write(1, 0)
    except InputError:
      self._listed = False
      self._write(1, 0)
    self.specials = self._find_written()
    self.breaks_line = not self._listed
    try:
      self._write(1, None, True)
      self.takes_system = True
    except InputError:
      self.takes_system = False
    self.end, self.closing = self._find_end()

  def prompt(self, has_image: bool) -> tuple[TemplatePart, ...]:
    """The parts of a first question, up to where its answer is to begin."""
    parts = self.parts(1, 0 if has_image else None)
    return parts[: next(n for n, part in enumerate(parts) if part.learned)]

  def check(self, write: Write) -> None:
    """Compares our tokens of a small conversation with transformers'.

    Raises:
      InputError: the template rewrites what is said, in more than trimming it.
    """
    for image in (None, 0):
      ours = write(self.parts(2, image), _QUESTIONS, _ANSWERS)
      ours = [
        token
        for place, token in enumerate(ours)
        if token != self._image_token or ours[place - 1] != token
      ]
      messages = self._messages(2, image, [*_QUESTIONS], [*_ANSWERS])
      theirs = self._tokenizer.apply_chat_template(
        messages, chat_template=self._source, return_dict=True
      )
      if ours != list(theirs["input_ids"]):
        raise InputError(
          "model.conversation='chat': the base's chat template does more than to"
          " frame the turns, and cannot be followed." + _OTHER
        )

  def _find_written(self) -> tuple[int, ...]:
    """Ids of the added tokens that the template writes; they stand apart in frames."""
    texts = [self._source]
    for image in (None, 0):
      messages = self._messages(2, image, _QUESTIONS, _ANSWERS)
      texts.append(self._render(messages, prompt=False)[0])
    written = []
    for token, added in self._tokenizer.added_tokens_decoder.items():
      name = added.content
      # Tokens that are not special can be words; only marks of turns matter here, and
      # one that swallows the blanks around it is better left to the tokenizer.
      plain = not (added.lstrip or added.rstrip or added.single_word)
      mark = name in self._specials or (name[:1] in ("<", "[", "|") and plain)
      if mark and any(name in text for text in texts):
        self._specials[name] = token
        written.append(token)
    return tuple(written)

  def _find_end(self) -> tuple[int | None, str]:
    """The token that ends an answer, None if none does, and the text before it."""
    parts = self._write(1, None)
    place = next(n for n, part in enumerate(parts) if part.kind == ANSWER)
    closing = ""
    for part in parts[place + 1 :]:
      if part.kind == TOKEN:
        # A blank before the token is a gap, which no answer is cut at.
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
    def content(text: str, has_image: bool = False) -> Any:
      if not self._listed:
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
    """Text, and the spans of it that are learned."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
      # Annotated as if it never gave the spans.
      rendered: Any = render_jinja_template(
        conversations=[messages],
        chat_template=self._source,
        return_assistant_tokens_mask=True,
        add_generation_prompt=prompt,
        **self._tokenizer.special_tokens_map,
      )
    # A template is a program, which may raise anything.
    except Exception as error:
      raise InputError(
        f"model.conversation='chat': the base's chat template fails: {error}." + _OTHER
      ) from error
    texts, spans = rendered
    return texts[0], spans[0]

  def _write(
    self, rounds: int, image: int | None, system: bool = False
  ) -> tuple[TemplatePart, ...]:
    slots = [_SLOT.format(number) for number in range(2 * rounds)]
    own = _SLOT.format(2 * rounds) if system else ""
    messages = self._messages(rounds, image, slots[::2], slots[1::2], own)
    text, spans = self._render(messages, prompt=False)
    found = [int(match[2]) for match in _SLOTS.finditer(text)]
    wanted = [2 * rounds] * system + [*range(2 * rounds)]
    if found != wanted or len(spans) != rounds:
      raise InputError(
        "model.conversation='chat': the base's chat template does not write each turn"
        " once, in order, the assistant's in {% generation %}." + _OTHER
      )
    # The blank before an answer is learned: a prompt ends before it.
    spans = [(len(text[:start].rstrip(" ")), stop) for start, stop in spans]
    parts = tuple(self._read(text, spans, rounds))
    asked, _ = self._render(messages[: -2 * rounds + 1 or None], prompt=True)
    if asked.rstrip(" ") != text[: spans[0][0]]:
      raise InputError(
        "model.conversation='chat': the base's chat template asks for an answer with"
        " other text than stands before {% generation %}." + _OTHER
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
    """The rendered text as parts."""
    place = 0
    for turn, (start, stop) in enumerate(spans):
      yield from self._read_span(text[place:start], turn, False, rounds)
      yield from self._read_span(text[start:stop], turn, True, rounds)
      place = stop
    yield from self._read_span(text[place:], len(spans) - 1, False, rounds)

  def _read_span(
    self, text: str, turn: int, learned: bool, rounds: int
  ) -> Iterator[TemplatePart]:
    place = 0
    for match in _SLOTS.finditer(text):
      yield from self._split(text[place : match.start()], turn, learned)
      number = int(match[2])
      kind = ANSWER if number % 2 else QUESTION
      kind = SYSTEM if number == 2 * rounds else kind
      if (kind == ANSWER) != learned:
        raise InputError(
          "model.conversation='chat': {% generation %} of the base's chat template"
          " must enclose the assistant's turns, and those only." + _OTHER
        )
      yield TemplatePart(kind, turn, learned, left=not match[1], right=not match[3])
      place = match.end()
    yield from self._split(text[place:], turn, learned)

  def _split(self, text: str, turn: int, learned: bool) -> Iterator[TemplatePart]:
    for part in split_frame(text, self._specials, turn, learned):
      if part.kind == TOKEN and part.token == self._image_token:
        yield TemplatePart(IMAGE, turn)
      elif part.kind == TOKEN or part.text:
        yield part
