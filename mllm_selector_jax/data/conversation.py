"""A conversation in LLaVA form to the tokens that a model reads.

As LLaVA-1.5 does: the text between images and ends of sequence is tokenised
piece by piece, the image's mark stands first in its turn and becomes one token a
patch, answers and their closing are supervised, and the end is cut off.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.literal import first_token, make_literal
from mllm_selector_jax.types import InputError, RowError, Sample

MARK = "<image>"


@dataclasses.dataclass(frozen=True)
class Template:
  """How rounds of question and answer are written as text.

  A round is `user`, the question, `assistant`, the answer, `closing`; the first
  is preceded by `system` and a space, if there is a system text.

  Attributes:
    asks: whether questions are written; otherwise only an image and one answer.
    ends: whether every answer is closed by the tokenizer's end of sequence.
  """

  system: str = ""
  user: str = ""
  assistant: str = ""
  closing: str = ""
  asks: bool = True
  ends: bool = True


TEMPLATES = {
  "vicuna_v1": Template(
    system=(
      "A chat between a curious user and an artificial intelligence assistant. The"
      " assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    user="USER: ",
    assistant=" ASSISTANT: ",
  ),
  # LLaVA's stage 1: an image, its caption, a new line; no end of sequence.
  "plain": Template(closing="\n", asks=False, ends=False),
}


class Round(NamedTuple):
  """One question and its answer."""

  question: str
  answer: str


def read_rounds(conversations: Any) -> list[Round]:
  """The rounds of a record's conversation.

  What precedes the first human turn is dropped, as LLaVA does; so is a last
  question without an answer.

  Raises:
    RowError: it is not a list of alternating human and gpt turns.
  """
  if not isinstance(conversations, list):
    raise RowError("malformed", "conversations is not a list")
  rounds, question = [], None
  for place, turn in enumerate(conversations):
    if not isinstance(turn, dict):
      raise RowError("malformed", f"turn {place} is not an object")
    role, value = turn.get("from"), turn.get("value")
    if role != "human" and question is None and not rounds:
      continue
    if not isinstance(value, str):
      raise RowError("malformed", f"turn {place} has no text in value")
    if role != ("human" if question is None else "gpt"):
      wanted = "human" if question is None else "gpt"
      raise RowError(
        "malformed",
        f"turn {place} is from {repr(role)[:40]}, where {wanted} is expected",
      )
    if question is None:
      question = value
    else:
      rounds.append(Round(question, value))
      question = None
  return rounds


class _Piece(NamedTuple):
  """Text that is tokenised as one.

  Attributes:
    follows: whether it comes after an end of sequence, without an image between.
    answer: character at which the supervised answer begins; -1 if none does.
    turn: the round that it ends, -1 if it only opens one.
  """

  text: str
  follows: bool
  answer: int
  turn: int


class Encoder:
  """Turns conversations into token ids.

  Args:
    tokenizer: a fast tokenizer of transformers.
    template: one of `TEMPLATES`, or one's own.
    image_token: id that stands for one patch of the image.
    patches: image tokens of an image.
    max_length: tokens of the longest row; what exceeds it is cut off.
    system: replaces the template's system text; "" leaves it out.

  Raises:
    InputError: the tokenizer is not a fast one, has no end of sequence, or does
      not know the image token.
  """

  def __init__(
    self,
    tokenizer: Any,
    template: Template,
    image_token: int,
    patches: int,
    max_length: int,
    system: str | None = None,
  ):
    if system is not None:
      template = dataclasses.replace(template, system=system)
    self.tokenizer = tokenizer
    self.template = template
    self.image_token = image_token
    self.patches = patches
    self.max_length = max_length
    self._first, self._after = make_literal(tokenizer, image_token)
    if template.ends and tokenizer.eos_token_id is None:
      raise InputError(
        "The base's tokenizer has no end-of-sequence token (eos_token), which closes"
        " every answer. Add one to its tokenizer_config.json."
      )
    self._end = [tokenizer.eos_token_id] if template.ends else []
    begin = tokenizer("a")["input_ids"][:1]
    begins = tokenizer.bos_token_id is not None and begin == [tokenizer.bos_token_id]
    # As at inference: a tokenizer that adds no BOS there gets none here.
    self._begin = begin if begins else []
    # A longer text has more tokens than are kept: megabytes are not tokenised.
    longest = max(map(len, self._first.get_vocab()))
    self._most_text = longest * (max_length + 64)
    self._openings: dict[tuple[str, bool], list[int]] = {}

  def encode(self, conversations: Any, has_image: bool) -> Sample:
    """One conversation as tokens.

    Raises:
      RowError: it cannot be learned from; the reason says why.
    """
    result = self.encode_many([(conversations, has_image)])[0]
    if isinstance(result, RowError):
      raise result
    return result

  def encode_many(self, rows: Sequence[tuple[Any, bool]]) -> list[Sample | RowError]:
    """Several conversations at once, each as `encode` does it.

    Args:
      rows: conversations, and whether the record has an image.
    """
    plans = [self._try(self._plan, *row) for row in rows]
    texts: tuple[list[str], list[str]] = ([], [])
    for plan in plans:
      if isinstance(plan, list):
        for piece in plan:
          if piece is not None and piece.turn >= 0:
            texts[piece.follows].append(piece.text)
    encodings = tuple(
      iter(side.encode_batch(batch, add_special_tokens=False) if batch else ())
      for side, batch in zip((self._first, self._after), texts, strict=True)
    )
    return [
      self._try(self._assemble, plan, encodings) if isinstance(plan, list) else plan
      for plan in plans
    ]

  def prompt(self, question: str, has_image: bool) -> Int[np.ndarray, " L"]:
    """Tokens of a first question, up to where its answer is to begin.

    Nothing is cut off. Marks in the question are dropped: an image stands first.
    """
    asked = question.replace(MARK, "").strip() if has_image else question
    marked = f"{MARK}\n{asked}" if has_image else asked
    ids = list(self._begin)
    for piece in self._write_round(0, Round(marked, ""), has_image):
      if piece is None:
        ids += [self.image_token] * self.patches
      elif text := piece.text.removesuffix(self.template.closing).rstrip(" "):
        text = piece.text if piece.turn < 0 else text
        side = self._after if piece.follows else self._first
        ids += side.encode(text, add_special_tokens=False).ids
    return np.array(ids, np.int32)

  def decode(self, ids: Sequence[int] | Int[np.ndarray, " L"]) -> str:
    """Text of token ids, without the special ones and without outer blanks."""
    text = self._first.decode([int(token) for token in ids], skip_special_tokens=True)
    return text.strip()

  def _try(self, function, *arguments):
    try:
      return function(*arguments)
    except RowError as error:
      return error.with_traceback(None)

  def _plan(self, conversations: Any, has_image: bool) -> list[_Piece | None]:
    """The pieces of text, and None for the image."""
    rounds = read_rounds(conversations)
    if not any(answer.strip() for _, answer in rounds):
      raise RowError("no supervised token", "no turn from gpt holds an answer")
    asked = sum(question.count(MARK) for question, _ in rounds)
    answered = sum(answer.count(MARK) for _, answer in rounds)
    marks = asked + answered
    if not has_image and marks:
      raise RowError("image marks", f"{marks} {MARK} in the text, no image")
    if has_image and marks > 1:
      raise RowError("several images", f"{marks} {MARK} in the text")
    if has_image and not marks:
      raise RowError("image marks", f"an image, no {MARK} in a question")
    if answered:
      raise RowError("image marks", f"{MARK} stands in an answer")
    if not self.template.asks and len(rounds) > 1:
      raise RowError("malformed", f"{len(rounds)} rounds, this template takes one")
    pieces = [
      piece
      for turn, item in enumerate(rounds)
      for piece in self._write_round(turn, item, MARK in item.question)
    ]
    for place, piece in enumerate(pieces):
      if piece is not None and len(piece.text) > self._most_text:
        return self._clip(pieces, place)
    return pieces

  def _clip(self, pieces: list[_Piece | None], place: int) -> list[_Piece | None]:
    """The pieces up to an enormous one, of which no more is kept than matters."""
    if None in pieces[place:]:
      raise RowError("too long", f"the image stands after {self.max_length:,} tokens")
    piece = pieces[place]
    answer = piece.answer if piece.answer < self._most_text else -1
    text = piece.text[: self._most_text]
    return [*pieces[:place], piece._replace(text=text, answer=answer)]

  def _write_round(
    self, turn: int, item: Round, has_image: bool
  ) -> list[_Piece | None]:
    """One round's pieces; the image, as None, goes first in its question."""
    template = self.template
    opening = template.user
    if turn == 0 and template.system:
      opening = f"{template.system} {opening}"
    question = item.question if template.asks else ""
    follows = turn > 0 and template.ends
    pieces: list[_Piece | None] = []
    if has_image:
      if opening:
        pieces.append(_Piece(opening, follows, -1, -1))
      pieces.append(None)
      question = question.replace(MARK, "").strip()
      opening, follows = ("\n" if question else ""), False
    start = f"{opening}{question}{template.assistant}"
    # The blank before an answer is learned: a prompt ends before it.
    blank = len(template.assistant) - len(template.assistant.rstrip(" "))
    answer = len(start) - blank if item.answer.strip() else -1
    text = f"{start}{item.answer}{template.closing}"
    pieces.append(_Piece(text, follows, answer, turn))
    return pieces

  def _assemble(self, plan: list[_Piece | None], encodings: tuple) -> Sample:
    spans = [(self._begin, -1, 0)]  # ids, round, where the supervised ones begin
    length = len(self._begin)
    image_end = 0
    for piece in plan:
      if piece is None:
        spans.append((None, -1, self.patches))
        length += self.patches
        image_end = length
        continue
      if piece.turn < 0:
        ids = self._encode_opening(piece)
        spans.append((ids, -1, len(ids)))
      else:
        encoding = next(encodings[piece.follows])
        ids = encoding.ids + self._end
        first = first_token(encoding, piece.answer) if piece.answer >= 0 else len(ids)
        spans.append((ids, piece.turn, first))
      length += len(ids)
    if image_end > self.max_length:
      raise RowError(
        "too long", f"{image_end:,} tokens with the image, {self.max_length:,} allowed"
      )
    tokens = np.empty(length, np.int32)
    turns = np.full(length, -1, np.int32)
    place = 0
    for ids, turn, first in spans:
      if ids is None:
        end = place + self.patches
        tokens[place:end] = self.image_token
      else:
        end = place + len(ids)
        tokens[place:end] = ids
        if turn >= 0:
          turns[place + first : end] = turn
      place = end
    truncated = length > self.max_length
    if truncated:
      tokens, turns = tokens[: self.max_length], turns[: self.max_length]
    supervised = turns >= 0
    if not supervised.any():
      raise RowError(
        "no supervised token", f"the answers begin after token {self.max_length:,}"
      )
    return Sample(tokens, supervised, turns, truncated)

  def _encode_opening(self, piece: _Piece) -> list[int]:
    """Ids of a text that many rows share."""
    key = piece.text, piece.follows
    if key not in self._openings:
      side = self._after if piece.follows else self._first
      self._openings[key] = side.encode(piece.text, add_special_tokens=False).ids
    return self._openings[key]
