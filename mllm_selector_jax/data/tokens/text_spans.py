"""A row's parts, filled with its turns, joined to the pieces that are tokenised."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mllm_selector_jax.data.tokens.conversation_templates import (
  ANSWER,
  FRAME,
  IMAGE,
  QUESTION,
  SYSTEM,
  TemplatePart,
)


class Piece(NamedTuple):
  """Text that is tokenised as one, or one special token, or an image.

  Attributes:
    text: None for a token or an image.
    token: id of a special token; None for an image.
    follows: whether the text goes on after a special token.
    turn: the round that it begins in.
    learned: (start, stop, round) of supervised characters, or of the token.
    shared: whether no turn's own text is in it.
    asked: (start, stop) of the characters of questions.
  """

  text: str | None
  token: int | None
  follows: bool
  turn: int
  learned: tuple[tuple[int, int, int], ...]
  shared: bool
  asked: tuple[tuple[int, int], ...] = ()

  @property
  def is_image(self) -> bool:
    return self.text is None and self.token is None


class Break(NamedTuple):
  """Where LLaVA's bookkeeping loses a row: from this round on."""

  turn: int


class EncodedPiece(NamedTuple):
  """A piece as tokens.

  Attributes:
    ids: of its tokens.
    learned: (start, stop, round) of those that are learned.
    asked: (start, stop) of those of questions.
  """

  ids: Sequence[int] | Int[np.ndarray, " n"]
  learned: Sequence[tuple[int, int, int]] = ()
  asked: Sequence[tuple[int, int]] = ()


def join_parts(
  parts: Iterable[TemplatePart],
  questions: Sequence[Sequence[str]],
  answers: Sequence[str],
  apart: bool,
  system: str = "",
  masked: Collection[int] = (),
  around: tuple[str, str] = ("", ""),
) -> list[Piece]:
  """The pieces of a row.

  Args:
    parts: of the layout for so many rounds.
    questions: the texts of each round's question, which its images divide.
    answers: text of each round's answer; an empty one's round is not learned.
    apart: whether text after an image begins anew.
    system: the row's own system text, if the parts have a place for one.
    masked: rounds whose answers are not learned either.
    around: texts before and after each image, which join the text beside them.
  """
  pieces: list[Piece] = []
  text, shared, begun, follows = "", True, 0, False
  learned: list[tuple[int, int, int]] = []
  asked: list[tuple[int, int]] = []

  def flush() -> None:
    nonlocal text, learned, shared, asked
    if text:
      spans = tuple(learned), shared, tuple(asked)
      pieces.append(Piece(text, None, follows, begun, *spans))
    text, learned, shared, asked = "", [], True, []

  for part in parts:
    is_learned = (
      part.learned and part.turn not in masked and answers[part.turn].strip() != ""
    )
    if part.kind <= ANSWER:
      if part.kind == FRAME:
        new = part.text
      else:
        if part.kind == SYSTEM:
          new = system
        elif part.kind == QUESTION:
          new = questions[part.turn][part.segment]
        else:
          new = answers[part.turn]
        new = new.lstrip() if part.left else new
        new = new.rstrip() if part.right else new
        shared = False
        if part.kind == QUESTION and new:
          asked.append((len(text), len(text) + len(new)))
      if not text:
        begun = part.turn
      if is_learned and new:
        start, stop = len(text), len(text) + len(new)
        if learned and learned[-1][1:] == (start, part.turn):
          start = learned.pop()[0]
        learned.append((start, stop, part.turn))
      text += new
      continue
    is_image = part.kind == IMAGE
    if is_image:
      begun = begun if text else part.turn
      text += around[0]
    flush()
    token = None if is_image else part.token
    span = ((0, 1, part.turn),) if is_learned else ()
    pieces.append(Piece(None, token, False, part.turn, span, True))
    follows = not is_image or not apart
    if is_image:
      begun, text = part.turn, around[1]
  flush()
  return pieces


def clip_pieces(pieces: list[Piece], longest: int) -> list[Piece]:
  """The pieces up to an enormous text, of which no more is kept than matters."""
  for place, piece in enumerate(pieces):
    if piece.text is not None and len(piece.text) > longest:
      learned = tuple(
        (start, min(stop, longest), turn)
        for start, stop, turn in piece.learned
        if start < longest
      )
      asked = tuple((a, min(b, longest)) for a, b in piece.asked if a < longest)
      cut = piece._replace(text=piece.text[:longest], learned=learned, asked=asked)
      return [*pieces[:place], cut]
  return pieces


def fill_row(
  pieces: Iterable[EncodedPiece], length: int
) -> tuple[Int[np.ndarray, " L"], Int[np.ndarray, " L"], Bool[np.ndarray, " L"]]:
  """Lays the pieces of a row end to end.

  Args:
    pieces: of the row, in order.
    length: tokens of all of them.

  Returns:
    The tokens, the round of each supervised one (-1 elsewhere), and whether a token
    is of a question's text.
  """
  tokens = np.empty(length, np.int32)
  turns = np.full(length, -1, np.int32)
  questions = np.zeros(length, bool)
  place = 0
  for ids, learned, asked in pieces:
    tokens[place : place + len(ids)] = ids
    for start, stop in asked:
      questions[place + start : place + stop] = True
    for start, stop, turn in learned:
      turns[place + start : place + stop] = turn
    place += len(ids)
  return tokens, turns, questions
