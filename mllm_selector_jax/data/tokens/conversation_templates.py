"""Defines the named conversation templates, and the layout of the rows they write.

A layout divides a row into parts: text of the template, the text of turns, special
tokens, and the image. Only the template can write tokens that frame turns. The text of
a turn is encoded as ordinary text and special tokens for content (see `specials`).
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mllm_selector_jax.types import ImageTokens, InputError

FRAME, SYSTEM, QUESTION, ANSWER, TOKEN, IMAGE = range(6)
IMAGE_LETTER, TEXT_LETTER = "i", "t"  # what a question holds, one letter each


class TemplatePart(NamedTuple):
  """One part of a row.

  Attributes:
    kind: FRAME, SYSTEM (a row's own system text), QUESTION, ANSWER, TOKEN or IMAGE.
    turn: the round that it belongs to.
    segment: of a QUESTION, which of the texts that images divide it into.
    learned: whether it is supervised, if the round's answer is not empty.
    text: of a FRAME.
    token: id of a TOKEN.
    left, right: whether the turn's text loses its blanks on that side.
  """

  kind: int
  turn: int = 0
  learned: bool = False
  text: str = ""
  token: int = -1
  left: bool = False
  right: bool = False
  segment: int = 0


@dataclasses.dataclass(frozen=True)
class Template:
  """A conversation template, which writes rounds of question and answer as text.

  A round consists of `user`, the question, `assistant`, the answer, `gap`, `closing`,
  the end-of-sequence token if `ends`, and `tail`. The loss covers everything from the
  blank before the answer to the end-of-sequence token.

  Attributes:
    system: the default system text.
    user: the text before a question.
    assistant: the text before an answer.
    closing: the text or special token that ends an answer.
    asks: whether questions are written; otherwise a row is an image and one answer.
    ends: whether every answer ends with the tokenizer's end-of-sequence token.
    system_frame: the texts before and after the system text.
    inside: whether the framed system text is after the first `user`, not before it.
    begins: whether later rounds, too, begin with the tokenizer's BOS token.
    gap: the text between an answer and `closing`.
    tail: the text after a round, which is not learned.
    specials: names of the special tokens that occur in the other fields.
    apart: whether text after an image is tokenised like the beginning of a text, as in
      LLaVA, and not like its continuation, as in transformers.
    separator: the text at which LLaVA splits a round to find the answer. LLaVA masks
      the whole row if a turn contains it too.
  """

  system: str = ""
  user: str = ""
  assistant: str = ""
  closing: str = ""
  asks: bool = True
  ends: bool = True
  system_frame: tuple[str, str] = ("", " ")
  inside: bool = False
  begins: bool = False
  gap: str = ""
  tail: str = ""
  specials: tuple[str, ...] = ()
  apart: bool = True
  separator: str = ""

  def bind(self, tokenizer: Any, images: ImageTokens) -> "TemplateLayout":
    """Returns the layout of rows, with the ids of the tokenizer's special tokens.

    Args:
      tokenizer: a fast tokenizer of transformers.
      images: not used here; `ChatTemplate.bind` needs it.

    Raises:
      InputError: the tokenizer lacks a special token of the template.
    """
    if self.ends and tokenizer.eos_token_id is None:
      raise InputError(
        "The base's tokenizer has no end-of-sequence token (eos_token), which closes"
        " every answer. Add one to its tokenizer_config.json."
      )
    vocabulary = tokenizer.get_vocab() if self.specials else {}
    if missing := [name for name in self.specials if name not in vocabulary]:
      raise InputError(
        f"The base's tokenizer does not know {', '.join(missing)}, which this"
        " conversation template writes. Choose the template that the base was trained"
        " with (--config.model.conversation)."
      )
    specials = {name: vocabulary[name] for name in self.specials}
    eos = tokenizer.eos_token_id if self.ends else None
    bos = tokenizer.bos_token_id if self.begins else None
    return TemplateLayout(self, specials, bos, eos)

  def breaks(self, turn: int, question: str, answer: str) -> bool:
    """Returns whether LLaVA would mask the whole row because of this round."""
    if not self.separator or self.separator.strip() not in f"{question}\0{answer}":
      return False
    text = f"{self.user}{question}{self.assistant}{answer}{self.gap}"
    return text.count(self.separator) > 1


class TemplateLayout:
  """Divides the rows of a template into parts.

  Attributes:
    end: the id that ends an answer; None if no single token does.
    closing: the text that ends an answer, before `end` or instead of it.
    adds_begin: whether the tokens that the tokenizer puts before a text, such as BOS,
      are put before a row.
    takes_system: whether the template has a place for a row's own system text.
    breaks_line: whether a question is written on a new line after its image.
    apart: see `Template`.
    specials: the ids that the layout writes.
    parts: returns the parts of a row; see `_write` for its arguments.
  """

  adds_begin = True
  breaks_line = True

  def __init__(
    self,
    template: Template,
    specials: Mapping[str, int],
    bos: int | None,
    eos: int | None,
  ):
    self._template = template
    self._specials = specials
    self._bos, self._eos = bos, eos
    self.apart = template.apart
    self.takes_system = template.asks
    self.specials = tuple(specials.values())
    self.end = specials.get(template.closing, eos)
    self.closing = "" if template.closing in specials else template.closing
    self.parts = functools.lru_cache(maxsize=256)(self._write)

  def _write(
    self, questions: tuple[str, ...], system: bool = False
  ) -> tuple[TemplatePart, ...]:
    """Lists the parts of a row.

    Args:
      questions: for each round, what its question holds, in order: a letter of
        `IMAGE_LETTER` or `TEXT_LETTER` for each image and each text.
      system: whether the row's own system text takes the template's place.
    """
    return tuple(
      part
      for turn, letters in enumerate(questions)
      for part in self._write_round(turn, letters, system and turn == 0)
      if part.kind != FRAME or part.text
    )

  def prompt(self, letters: str) -> tuple[TemplatePart, ...]:
    """The parts of a first question, up to where its answer is to begin."""
    parts = self.parts((letters,))
    return parts[: next(n for n, part in enumerate(parts) if part.learned)]

  def check(self, write: Any) -> None:
    """Does nothing; `ChatLayout.check` compares tokens with those of transformers."""

  def _write_round(
    self, turn: int, letters: str, system: bool
  ) -> Iterator[TemplatePart]:
    template = self._template
    if turn and self._bos is not None:
      yield TemplatePart(TOKEN, turn, token=self._bos)
    if template.inside:
      yield from self._split(template.user, turn)
    if system or (turn == 0 and template.system):
      yield from self._split(template.system_frame[0], turn)
      yield (
        TemplatePart(SYSTEM)
        if system
        else TemplatePart(FRAME, turn, text=template.system)
      )
      yield from self._split(template.system_frame[1], turn)
    if not template.inside:
      yield from self._split(template.user, turn)
    yield from (
      part
      for part in list_question(turn, letters)
      if template.asks or part.kind == IMAGE
    )
    # The blank before an answer is learned: a prompt ends before it.
    stem = template.assistant.rstrip(" ")
    yield from self._split(stem, turn)
    yield TemplatePart(FRAME, turn, True, template.assistant[len(stem) :])
    yield TemplatePart(ANSWER, turn, True)
    yield TemplatePart(FRAME, turn, True, template.gap)
    yield from self._split(template.closing, turn, True)
    if self._eos is not None:
      yield TemplatePart(TOKEN, turn, True, token=self._eos)
    yield from self._split(template.tail, turn)

  def _split(
    self, text: str, turn: int, learned: bool = False
  ) -> Iterator[TemplatePart]:
    return split_frame(text, self._specials, turn, learned)


def list_question(turn: int, letters: str) -> Iterator[TemplatePart]:
  """The images and the texts of a question, in order; see `TemplateLayout`."""
  segment = 0
  for letter in letters:
    if letter == IMAGE_LETTER:
      yield TemplatePart(IMAGE, turn)
    else:
      yield TemplatePart(QUESTION, turn, segment=segment)
      segment += 1


def split_frame(
  text: str, specials: Mapping[str, int], turn: int, learned: bool = False
) -> Iterator[TemplatePart]:
  """Divides a text of the template into FRAME and TOKEN parts.

  Args:
    text: the text.
    specials: the ids of special tokens, by their names in the text.
    turn: the round that the parts belong to.
    learned: whether the parts are supervised.
  """
  if not specials:
    yield TemplatePart(FRAME, turn, learned, text)
    return
  longest_first = sorted(specials, key=len, reverse=True)
  for piece in re.split(f"({'|'.join(map(re.escape, longest_first))})", text):
    if piece in specials:
      yield TemplatePart(TOKEN, turn, learned, token=specials[piece])
    else:
      yield TemplatePart(FRAME, turn, learned, piece)


VICUNA = Template(
  system=(
    "A chat between a curious user and an artificial intelligence assistant. The"
    " assistant gives helpful, detailed, and polite answers to the user's questions."
  ),
  user="USER: ",
  assistant=" ASSISTANT: ",
  separator=" ASSISTANT: ",
)

# LLaVA's stage 1: an image, its caption and a line break, without end of sequence.
PLAIN = Template(closing="\n", asks=False, ends=False)

# The template of Qwen and of models derived from it.
CHATML = Template(
  system="You are a helpful assistant.",
  system_frame=("<|im_start|>system\n", "<|im_end|>\n"),
  user="<|im_start|>user\n",
  assistant="<|im_end|>\n<|im_start|>assistant\n",
  closing="<|im_end|>",
  tail="\n",
  ends=False,
  specials=("<|im_start|>", "<|im_end|>"),
  apart=False,
)

# The template of Llama 2, as LLaVA writes it.
LLAMA_2 = Template(
  system_frame=("<<SYS>>\n", "\n<</SYS>>\n\n"),
  user="[INST] ",
  inside=True,
  assistant=" [/INST] ",
  gap=" ",
  begins=True,
  separator="[/INST] ",
)

WRITTEN = {
  "vicuna_v1": VICUNA,
  "plain": PLAIN,
  "chatml": CHATML,
  "llama-2": LLAMA_2,
}
