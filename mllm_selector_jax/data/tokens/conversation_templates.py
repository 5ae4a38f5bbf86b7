"""How a conversation's turns are framed: named templates, and a row's layout.

A layout is the row as parts: text of the template, the turns' own text, special
tokens and the image. Tokens that frame turns come from the template only; what a turn
says is text, or a special token for content (see `specials`).
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mllm_selector_jax.types import InputError

FRAME, SYSTEM, QUESTION, ANSWER, TOKEN, IMAGE = range(6)


class TemplatePart(NamedTuple):
  """What stands next in a row.

  Attributes:
    kind: FRAME, SYSTEM (a row's own system text), QUESTION, ANSWER, TOKEN or IMAGE.
    turn: the round that it belongs to.
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


@dataclasses.dataclass(frozen=True)
class Template:
  """How rounds of question and answer are written as text.

  A round is `user`, the question, `assistant`, the answer, `gap`, `closing`, the end
  of sequence if `ends`, `tail`; learned is all from the blank before the answer to
  the end of sequence. The system text stands in `system_frame` before the first
  `user`, or after it if `inside`.

  Attributes:
    asks: whether questions are written; otherwise only an image and one answer.
    ends: whether every answer is closed by the tokenizer's end of sequence.
    begins: whether later rounds, too, open with the tokenizer's BOS.
    specials: special tokens that the other fields spell out.
    apart: whether text after an image is tokenised as a text of its own, as LLaVA
      does, not as one that goes on, as transformers does.
    separator: at which LLaVA splits a round's text to find the answer. It masks
      the whole row where a turn's text brings a second one.
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

  def bind(self, tokenizer: Any, image_token: int) -> "TemplateLayout":
    """The template with a tokenizer's own special tokens.

    Raises:
      InputError: the tokenizer lacks one of them.
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
        " with (model.conversation)."
      )
    specials = {name: vocabulary[name] for name in self.specials}
    eos = tokenizer.eos_token_id if self.ends else None
    bos = tokenizer.bos_token_id if self.begins else None
    return TemplateLayout(self, specials, bos, eos)

  def breaks(self, turn: int, question: str, answer: str) -> bool:
    """Whether LLaVA's bookkeeping loses the row at this round."""
    if not self.separator or self.separator.strip() not in f"{question}\0{answer}":
      return False
    text = f"{self.user}{question}{self.assistant}{answer}{self.gap}"
    return text.count(self.separator) > 1


class TemplateLayout:
  """A template's rows as parts.

  Attributes:
    end: id that ends an answer; None if no single token does.
    closing: text that ends an answer, before `end` or in its place.
    adds_begin: whether the row opens with what the tokenizer opens texts with.
    takes_system: whether there is a place for a row's own system text.
    breaks_line: whether a question goes to a new line after its image.
    apart: see `Template`.
    specials: ids that the layout writes.
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
    self, rounds: int, image: int | None, system: bool = False
  ) -> tuple[TemplatePart, ...]:
    """The parts of a row of so many rounds.

    Args:
      rounds: of question and answer.
      image: the round whose question has it; None for none.
      system: whether the row's own system text takes the template's place.
    """
    return tuple(
      part
      for turn in range(rounds)
      for part in self._write_round(turn, image == turn, system and turn == 0)
      if part.kind != FRAME or part.text
    )

  def prompt(self, has_image: bool) -> tuple[TemplatePart, ...]:
    """The parts of a first question, up to where its answer is to begin."""
    parts = self.parts(1, 0 if has_image else None)
    return parts[: next(n for n, part in enumerate(parts) if part.learned)]

  def check(self, write: Any) -> None:
    """Nothing is to be checked: the template is ours."""

  def _write_round(
    self, turn: int, has_image: bool, system: bool
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
    if has_image:
      yield TemplatePart(IMAGE, turn)
    if template.asks:
      yield TemplatePart(QUESTION, turn)
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


def split_frame(
  text: str, specials: Mapping[str, int], turn: int, learned: bool = False
) -> Iterator[TemplatePart]:
  """A template's text as parts, its special tokens apart."""
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

# LLaVA's stage 1: an image, its caption, a new line; no end of sequence.
PLAIN = Template(closing="\n", asks=False, ends=False)

# Qwen's, and that of the models made from it.
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

# Llama 2's, as LLaVA writes it.
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
