"""A conversation in LLaVA form to the tokens that a model reads.

As in LLaVA-1.5, the text between images and ends of sequence is tokenised piece by
piece, the image's mark becomes one token a patch at the start of its turn, answers and
their closing are supervised, and what is too long is cut off at the end.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.data.tokens.answer_text import AnswerReader
from mllm_selector_jax.data.tokens.chat_template import ChatTemplate
from mllm_selector_jax.data.tokens.conversation_templates import WRITTEN, Template
from mllm_selector_jax.data.tokens.dialogue import Dialogue, check_rounds, read_dialogue
from mllm_selector_jax.data.tokens.literal_tokenizer import (
  check_tokenizer,
  find_inside,
  find_span,
  make_literal,
)
from mllm_selector_jax.data.tokens.specials import AUTO, Choice, Specials
from mllm_selector_jax.data.tokens.text_spans import (
  Break,
  EncodedPiece,
  Piece,
  TemplateParts,
  clip_pieces,
  join_parts,
)
from mllm_selector_jax.types import MARK, InputError, RowError, Sample

TEMPLATES: dict[str, Template | ChatTemplate] = {**WRITTEN, "chat": ChatTemplate()}
_Plan = list[Piece | Break]


class Encoder:
  """Turns conversations into token ids.

  Args:
    tokenizer: a fast tokenizer of transformers.
    template: one of `TEMPLATES`, or one's own.
    image_token: id that stands for one patch of the image.
    patches: image tokens of an image.
    max_length: tokens of the longest row; what exceeds it is cut off.
    system: replaces the template's system text; "" leaves it out.
    row_system: whether a row's own system text goes before the template's; otherwise
      the template's stands in every row, as LLaVA has it.
    ends: ids that end an answer beside the template's and the tokenizer's own.
    content_specials: which special tokens a turn's text may hold, see `Specials`.

  Attributes:
    takes_system: whether a row's own system text is used.
    answers: finds the end of a generated answer, and reads its text.
    specials: which added tokens a turn's text may hold.

  Raises:
    InputError: the tokenizer is not a fast one, lacks a special token that the
      template writes, or does not know the image token; or its own chat template
      is asked for and cannot be followed.
  """

  def __init__(
    self,
    tokenizer: Any,
    template: Template | ChatTemplate,
    image_token: int,
    patches: int,
    max_length: int,
    system: str | None = None,
    row_system: bool = True,
    ends: Sequence[int] = (),
    content_specials: Choice = AUTO,
  ):
    if system is not None:
      template = dataclasses.replace(template, system=system)
    self.tokenizer = tokenizer
    self.template = template
    self.image_token = image_token
    self.patches = patches
    self.max_length = max_length
    check_tokenizer(tokenizer, image_token)
    self._layout = template.bind(tokenizer, image_token)
    self.takes_system = row_system and self._layout.takes_system
    layout = self._layout
    if tokenizer.eos_token_id is not None:
      ends = (*ends, tokenizer.eos_token_id)
    self.specials = Specials(
      tokenizer, image_token, layout.specials, ends, content_specials
    )
    self._first, self._after = make_literal(tokenizer, self.specials.literal)
    self.answers = AnswerReader(self._first, layout.end, layout.closing, ends)
    begin = tokenizer("a")["input_ids"][:1]
    begins = tokenizer.bos_token_id is not None and begin == [tokenizer.bos_token_id]
    # As at inference: a tokenizer that adds no BOS there gets none here.
    self._begin = begin if begins and self._layout.adds_begin else []
    self._image = np.full(patches, image_token, np.int32)
    # A longer text has more tokens than are kept: megabytes are not tokenised.
    longest = max(map(len, self._first.get_vocab()))
    self._most_text = longest * (max_length + 64)
    self._shared: dict[tuple[str, bool], Any] = {}
    self._layout.check(self._write)
    self._splits = self._must_split()

  def encode(self, conversations: Any, has_image: bool) -> Sample:
    """One conversation, as a list of turns or a `Dialogue`, as tokens.

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
          if isinstance(piece, Piece) and piece.text is not None and not piece.shared:
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
    parts = self._layout.prompt(has_image)
    asked = self._read_question(question, has_image)
    ids = self._begin + self._write(parts, [asked], [""])
    return np.array(ids, np.int32)

  @functools.cached_property
  def trunk(self) -> Int[np.ndarray, " L"]:
    """What each row begins with whose image stands in its first turn."""
    ids = self.prompt("", has_image=True)
    return ids[: np.flatnonzero(ids == self.image_token)[-1] + 1]

  @functools.cached_property
  def _trunk_bytes(self) -> bytes:
    return self.trunk.tobytes()

  def measure_trunk(self, sample: Sample) -> int:
    """Tokens that a row has in common with the others of its image.

    Through the image's end; 0 where there is no image, where it stands in a later
    turn, or where an answer follows it at once (its last patch predicts a token
    that the others do not have).
    """
    length = len(self.trunk)
    if sample.tokens[:length].tobytes() != self._trunk_bytes:
      return 0
    answered = len(sample.tokens) > length and sample.supervised[length]
    return 0 if answered else length

  def _try(self, function, *arguments):
    try:
      return function(*arguments)
    except RowError as error:
      return error.with_traceback(None)

  def _write(
    self, parts: TemplateParts, questions: Sequence[str], answers: Sequence[str]
  ) -> list[int]:
    """Ids of a row, or of its beginning, less the last blanks."""
    ids: list[int] = []
    pieces = join_parts(parts, questions, answers, self._layout.apart)
    for place, piece in enumerate(pieces):
      if piece.text is None:
        ids += self._image.tolist() if piece.token is None else [piece.token]
        continue
      last = place == len(pieces) - 1
      text = piece.text.rstrip(" ") if last else piece.text
      ids += self._encode(text, piece.follows).ids
    return ids

  def _read_question(self, text: str, has_image: bool) -> str:
    """A question without its mark; where its image stands first, on a new line."""
    if not has_image:
      return text
    text = text.replace(MARK, "").strip()
    return f"\n{text}" if text and self._layout.breaks_line else text

  def _plan(self, conversations: Any, has_image: bool) -> _Plan:
    """The pieces to be tokenised, and where LLaVA would give up."""
    if not isinstance(conversations, Dialogue):
      conversations = read_dialogue(conversations)
    rounds = conversations.rounds
    masked = check_rounds(rounds, has_image)
    if not self.template.asks and len(rounds) > 1:
      raise RowError("malformed", f"{len(rounds)} rounds, this template takes one")
    marked = [MARK in own.question for own in rounds]
    questions = [
      self._read_question(own.question, mark)
      for own, mark in zip(rounds, marked, strict=True)
    ]
    answers = [own.answer for own in rounds]
    image = marked.index(True) if has_image else None
    system = conversations.system if self.takes_system else None
    parts = self._layout.parts(len(rounds), image, system is not None)
    whole = join_parts(
      parts, questions, answers, self._layout.apart, system or "", masked
    )
    pieces = clip_pieces(whole, self._most_text)
    if has_image and len(pieces) < len(whole):
      if any(
        piece.text is None and piece.token is None for piece in whole[len(pieces) :]
      ):
        raise RowError("too long", f"the image stands after {self.max_length:,} tokens")
    for turn, texts in enumerate(zip(questions, answers, strict=True)):
      if self.template.breaks(turn, *texts):
        turns = [piece.turn for piece in pieces] + [turn]
        place = next(n for n, begun in enumerate(turns) if begun >= turn)
        return [*pieces[:place], Break(turn), *pieces[place:]]
    return list(pieces)

  def _assemble(self, plan: _Plan, encodings: tuple) -> Sample:
    encoded = [EncodedPiece(self._begin)]
    length = len(self._begin)
    image_end = 0
    lost = None
    for piece in plan:
      if isinstance(piece, Break):
        # LLaVA's own count: an image is one token, and no row is cut yet.
        counted = length - (self.patches - 1 if image_end else 0)
        lost = piece.turn if counted < self.max_length else None
        continue
      if piece.text is None:
        single = self._image if piece.token is None else (piece.token,)
        encoded.append(EncodedPiece(single, piece.learned))
      else:
        encoded.append(self._encode_piece(piece, encodings))
      length += len(encoded[-1].ids)
      if piece.text is None and piece.token is None:
        image_end = length
    if lost is not None:
      assert isinstance(self.template, Template), "no chat template breaks a row"
      raise RowError(
        "masked by LLaVA",
        f"round {lost} holds {self.template.separator!r} as text",
      )
    if image_end > self.max_length:
      raise RowError(
        "too long", f"{image_end:,} tokens with the image, {self.max_length:,} allowed"
      )
    tokens = np.empty(length, np.int32)
    turns = np.full(length, -1, np.int32)
    questions = np.zeros(length, bool)
    place = 0
    for ids, learned, asked in encoded:
      tokens[place : place + len(ids)] = ids
      for start, stop in asked:
        questions[place + start : place + stop] = True
      for start, stop, turn in learned:
        turns[place + start : place + stop] = turn
      place += len(ids)
    truncated = length > self.max_length
    if truncated:
      kept = slice(self.max_length)
      tokens, turns, questions = tokens[kept], turns[kept], questions[kept]
    supervised = turns >= 0
    if not supervised.any():
      raise RowError(
        "no supervised token", f"the answers begin after token {self.max_length:,}"
      )
    return Sample(tokens, supervised, turns, questions & ~supervised, truncated)

  def _encode(self, text: str, follows: bool) -> Any:
    side = self._after if follows else self._first
    return side.encode(text, add_special_tokens=False)

  def _must_split(self) -> bool:
    """Whether the end of a prompt has other tokens as soon as an answer follows."""
    parts = self._layout.prompt(False)
    pieces = join_parts(parts, ["a"], [""], self._layout.apart)
    last = pieces[-1] if pieces else None
    if last is None or last.text is None:
      return False
    ids = self._encode(last.text.rstrip(" "), last.follows).ids
    return self._encode(f"{last.text}a", last.follows).ids[: len(ids)] != ids

  def _encode_piece(self, piece: Piece, encodings: tuple) -> EncodedPiece:
    """Tokenises a piece of text."""
    text = piece.text
    assert text is not None, "tokens and images are not encoded"
    if piece.shared:
      key = text, piece.follows
      if key not in self._shared:
        self._shared[key] = self._encode(*key)
      encoding = self._shared[key]
    else:
      encoding = next(encodings[piece.follows])
    ids, learned = encoding.ids, []
    for start, stop, turn in piece.learned:
      first, last, straddles = find_span(encoding, start, stop, text)
      if start and (straddles or self._splits) and len(piece.learned) == 1:
        # At inference the prompt ends here, and the answer begins a token.
        asked = self._encode(text[:start], piece.follows)
        said = self._encode(text[start:], True)
        _, last, _ = find_span(said, 0, stop - start, text[start:])
        questions = find_inside(asked, piece.asked, text[:start])
        learned = [(len(asked.ids), len(asked.ids) + last, turn)]
        return EncodedPiece(asked.ids + said.ids, learned, questions)
      learned.append((first, last, turn))
    return EncodedPiece(ids, learned, find_inside(encoding, piece.asked, text))


def make_encoder(
  name: str, *arguments: Any, chat_date: str | None = None, **options: Any
) -> Encoder:
  """The encoder of a named template; the rest is what `Encoder` takes.

  Args:
    name: of the template.
    arguments, options: of `Encoder`, without the template.
    chat_date: that a chat template writes; None for the default.

  Raises:
    InputError: no template is called so, or the tokenizer does not fit it.
  """
  if name not in TEMPLATES:
    raise InputError(
      f"model.conversation={name!r}: allowed are {', '.join(TEMPLATES)}."
    )
  tokenizer, *others = arguments
  template = TEMPLATES[name]
  if chat_date is not None and isinstance(template, ChatTemplate):
    template = dataclasses.replace(template, date=chat_date)
  return Encoder(tokenizer, template, *others, **options)
