"""Turns a conversation in LLaVA form into the tokens that a model reads.

As in LLaVA-1.5, the text between images and ends of sequence is tokenised piece by
piece, an image's mark becomes the tokens of its image, answers and their closing are
supervised, and a row that is too long is cut off at the end.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.tokens.answer_text import AnswerReader
from mllm_selector_jax.data.tokens.box_forms import BoxForm, BoxWriter, Size
from mllm_selector_jax.data.tokens.chat_template import ChatTemplate
from mllm_selector_jax.data.tokens.conversation_templates import (
  IMAGE,
  TEXT_LETTER,
  WRITTEN,
  Template,
  TemplatePart,
)
from mllm_selector_jax.data.tokens.dialogue import Dialogue, check_rounds, read_dialogue
from mllm_selector_jax.data.tokens.literal_tokenizer import (
  check_tokenizer,
  make_literal,
)
from mllm_selector_jax.data.tokens.question_images import split_question
from mllm_selector_jax.data.tokens.specials import AUTO, Choice, Specials
from mllm_selector_jax.data.tokens.text_encoder import TextEncoder
from mllm_selector_jax.data.tokens.text_spans import (
  Break,
  EncodedPiece,
  Piece,
  clip_pieces,
  fill_row,
  join_parts,
)
from mllm_selector_jax.types import (
  MARK,
  ImageLayout,
  InputError,
  PlacedImage,
  RowError,
  Sample,
)

AUTO_TEMPLATE = "auto"  # the tokenizer's own where it has one
TEMPLATES: dict[str, Template | ChatTemplate] = {**WRITTEN, "chat": ChatTemplate()}
NO_SIZES: tuple[Size, ...] = ()


class _Plan(NamedTuple):
  """A row that is about to be tokenised.

  Attributes:
    pieces: of its text, and where LLaVA would give up.
    images: the layout of each image, in order.
  """

  pieces: list[Piece | Break]
  images: list[ImageLayout]


class Encoder:
  """Turns conversations into token ids.

  Args:
    tokenizer: a fast tokenizer of transformers.
    template: one of `TEMPLATES`, or one's own.
    images: how images of the base become tokens.
    max_length: tokens of the longest row; what exceeds it is cut off.
    system: replaces the template's system text; "" leaves it out.
    row_system: whether a row's own system text goes before the template's; otherwise
      the template's stands in every row, as LLaVA has it.
    ends: ids that end an answer beside the template's and the tokenizer's own.
    content_specials: which special tokens a turn's text may hold, see `Specials`.
    box_form: how boxes are written that a record states; None if it is not known.

  Attributes:
    image_token: id that stands for one feature of an image.
    takes_system: whether a row's own system text is used.
    answers: finds the end of a generated answer, and reads its text.
    specials: which added tokens a turn's text may hold.
    boxes: writes the boxes that a record states into its turns.

  Raises:
    InputError: the tokenizer is not a fast one, lacks a special token that the
      template writes, or does not know the image token; or its own chat template
      is asked for and cannot be followed.
  """

  def __init__(
    self,
    tokenizer: Any,
    template: Template | ChatTemplate,
    images: BaseImages,
    max_length: int,
    system: str | None = None,
    row_system: bool = True,
    ends: Sequence[int] = (),
    content_specials: Choice = AUTO,
    box_form: BoxForm | None = None,
  ):
    if system is not None:
      template = dataclasses.replace(template, system=system)
    self.tokenizer = tokenizer
    self.template = template
    self.images = images
    self.boxes = BoxWriter(box_form, images)
    self.image_token = image_token = images.tokens.image
    self._around = images.tokens.around
    self.max_length = max_length
    check_tokenizer(tokenizer, image_token)
    layout = self._layout = template.bind(tokenizer, images.tokens)
    self.takes_system = row_system and layout.takes_system
    if tokenizer.eos_token_id is not None:
      ends = (*ends, tokenizer.eos_token_id)
    written = (*layout.specials, *images.tokens.marks)
    self.specials = Specials(tokenizer, image_token, written, ends, content_specials)
    self._text = TextEncoder(*make_literal(tokenizer, self.specials.literal))
    self.answers = AnswerReader(self._text.first, layout.end, layout.closing, ends)
    begin = tokenizer("a")["input_ids"][:1]
    begins = tokenizer.bos_token_id is not None and begin == [tokenizer.bos_token_id]
    # As at inference: a tokenizer that adds no BOS there gets none here.
    self._begin = begin if begins and self._layout.adds_begin else []
    # A longer text has more tokens than are kept: megabytes are not tokenised.
    longest = max(map(len, self._text.first.get_vocab()))
    self._most_text = longest * (max_length + 64)
    self._layout.check(self._write_check)
    asked = join_parts(layout.prompt(TEXT_LETTER), [["a"]], [""], layout.apart)
    self._splits = self._text.must_split(asked)

  def encode(self, conversations: Any, sizes: Sequence[Size] = NO_SIZES) -> Sample:
    """Turns one conversation into tokens.

    Args:
      conversations: a list of turns, or a `Dialogue`.
      sizes: of the record's images, in the order of their marks.

    Raises:
      RowError: it cannot be learned from; the reason says why.
    """
    result = self.encode_many([(conversations, sizes)])[0]
    if isinstance(result, RowError):
      raise result
    return result

  def encode_many(
    self, rows: Sequence[tuple[Any, Sequence[Size]]]
  ) -> list[Sample | RowError]:
    """Turns several conversations into tokens at once, each as `encode` does it.

    Args:
      rows: conversations, and the sizes of the record's images.
    """
    plans = [self._try(self._plan, *row) for row in rows]
    texts: tuple[list[str], list[str]] = ([], [])
    for plan in plans:
      if isinstance(plan, _Plan):
        for piece in plan.pieces:
          if isinstance(piece, Piece) and piece.text is not None and not piece.shared:
            texts[piece.follows].append(piece.text)
    encodings = self._text.encode_batches(*texts)
    return [
      self._try(self._assemble, plan, encodings) if isinstance(plan, _Plan) else plan
      for plan in plans
    ]

  def prompt(self, question: str, sizes: Sequence[Size] = NO_SIZES) -> Sample:
    """Tokens of a first question, up to where its answer is to begin.

    Nothing is cut off, and nothing is supervised. Images without a mark stand first.

    Raises:
      RowError: the question has another number of marks than images.
    """
    marks = question.count(MARK) if sizes else 0
    if marks not in (0, len(sizes)):
      raise RowError("image marks", f"{marks} {MARK}, {len(sizes)} images")
    if sizes and not marks:
      question = f"{MARK}\n" * len(sizes) + question
    letters, texts = self._split_question(question, bool(sizes))
    layouts = [self.images.lay_out(*size, len(sizes)) for size in sizes]
    parts = self._layout.prompt(letters)
    ids, places = self._write(parts, [texts], [""], layouts, self._around)
    begin = len(self._begin)
    tokens = np.array(self._begin + ids, np.int32)
    nothing = np.zeros(len(tokens), bool)
    images = (PlacedImage(begin + start, layout) for start, layout in places)
    turns = np.full(len(tokens), -1, np.int32)
    return Sample(tokens, nothing, turns, nothing, False, tuple(images))

  def _try(self, function, *arguments):
    try:
      return function(*arguments)
    except RowError as error:
      return error.with_traceback(None)

  def _write(
    self,
    parts: Sequence[TemplatePart],
    questions: Sequence[Sequence[str]],
    answers: Sequence[str],
    layouts: Sequence[ImageLayout],
    around: tuple[str, str] = ("", ""),
  ) -> tuple[list[int], list[tuple[int, ImageLayout]]]:
    """Ids of a row, or of its beginning, less the last blanks, and its images."""
    ids: list[int] = []
    placed: list[tuple[int, ImageLayout]] = []
    waiting = iter(layouts)
    pieces = join_parts(parts, questions, answers, self._layout.apart, around=around)
    for place, piece in enumerate(pieces):
      if piece.is_image:
        layout = next(waiting)
        placed.append((len(ids), layout))
        ids += layout.tokens.tolist()
      elif piece.token is not None:
        ids.append(piece.token)
      else:
        assert piece.text is not None, "a piece is a text, a token or an image"
        last = place == len(pieces) - 1
        text = piece.text.rstrip(" ") if last else piece.text
        ids += self._text.encode(text, piece.follows).ids
    return ids, placed

  def _write_check(
    self,
    parts: Sequence[TemplatePart],
    questions: Sequence[str],
    answers: Sequence[str],
  ) -> list[int]:
    """Ids of a row with an image as a template writes it; for `ChatLayout.check`."""
    count = sum(part.kind == IMAGE for part in parts)
    written = np.array(self.images.tokens.written, np.int32)
    single = ImageLayout(1, written, np.zeros(1, np.int32))
    texts = [[text] for text in questions]
    return self._write(parts, texts, answers, [single] * count)[0]

  def _split_question(self, text: str, marked: bool) -> tuple[str, tuple[str, ...]]:
    if not marked:
      return TEXT_LETTER, (text,)
    return split_question(text, self.images.leads, self._layout.breaks_line)

  def _plan(self, conversations: Any, sizes: Sequence[Size]) -> _Plan:
    """The pieces to be tokenised, and where LLaVA would give up."""
    if not isinstance(conversations, Dialogue):
      conversations = read_dialogue(conversations)
    rounds = conversations.rounds
    masked = check_rounds(rounds, len(sizes))
    if not self.template.asks and len(rounds) > 1:
      raise RowError("malformed", f"{len(rounds)} rounds, this template takes one")
    split = [self._split_question(turn.question, bool(sizes)) for turn in rounds]
    letters, questions = zip(*split, strict=True)
    answers = [turn.answer for turn in rounds]
    system = conversations.system if self.takes_system else None
    parts = self._layout.parts(letters, system is not None)
    whole = join_parts(
      parts, questions, answers, self._layout.apart, system or "", masked, self._around
    )
    pieces: list[Piece | Break] = [*clip_pieces(whole, self._most_text)]
    if any(piece.is_image for piece in whole[len(pieces) :]):
      raise RowError("too long", f"an image stands after {self.max_length:,} tokens")
    layouts = [self.images.lay_out(*size, len(sizes)) for size in sizes]
    for turn, (texts, answer) in enumerate(zip(questions, answers, strict=True)):
      if self.template.breaks(turn, "".join(texts), answer):
        turns = [piece.turn for piece in pieces] + [turn]
        place = next(n for n, begun in enumerate(turns) if begun >= turn)
        pieces.insert(place, Break(turn))
        break
    return _Plan(pieces, layouts)

  def _assemble(self, plan: _Plan, encodings: tuple) -> Sample:
    encoded = [EncodedPiece(self._begin)]
    length = len(self._begin)
    placed: list[PlacedImage] = []
    layouts = iter(plan.images)
    lost = None
    for piece in plan.pieces:
      if isinstance(piece, Break):
        # LLaVA's own count: an image is one token, and no row is cut yet.
        counted = length - sum(len(image.layout.tokens) - 1 for image in placed)
        lost = piece.turn if counted < self.max_length else None
        continue
      if piece.is_image:
        placed.append(PlacedImage(length, next(layouts)))
        encoded.append(EncodedPiece(placed[-1].layout.tokens))
      elif piece.token is not None:
        encoded.append(EncodedPiece((piece.token,), piece.learned))
      else:
        encoded.append(self._text.encode_piece(piece, encodings, self._splits))
      length += len(encoded[-1].ids)
    if lost is not None:
      assert isinstance(self.template, Template), "no chat template breaks a row"
      raise RowError(
        "masked by LLaVA",
        f"round {lost} holds {self.template.separator!r} as text",
      )
    if placed and placed[-1].stop > self.max_length:
      held = "the image" if len(placed) == 1 else f"{len(placed)} images"
      raise RowError(
        "too long",
        f"{placed[-1].stop:,} tokens with {held}, {self.max_length:,} allowed",
      )
    tokens, turns, questions = fill_row(encoded, length)
    truncated = length > self.max_length
    if truncated:
      kept = slice(self.max_length)
      tokens, turns, questions = tokens[kept], turns[kept], questions[kept]
    supervised = turns >= 0
    if not supervised.any():
      raise RowError(
        "no supervised token", f"the answers begin after token {self.max_length:,}"
      )
    asked = questions & ~supervised
    return Sample(tokens, supervised, turns, asked, truncated, tuple(placed))


def choose_template(name: str, tokenizer: Any) -> str:
  """Returns the template that `model.conversation` means for a base's tokenizer."""
  if name != AUTO_TEMPLATE:
    return name
  return "chat" if tokenizer.chat_template else "vicuna_v1"


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
  tokenizer, *others = arguments
  name = choose_template(name, tokenizer)
  if name not in TEMPLATES:
    names = ", ".join((AUTO_TEMPLATE, *TEMPLATES))
    raise InputError(f"model.conversation={name!r}: allowed are {names}.")
  template = TEMPLATES[name]
  if chat_date is not None and isinstance(template, ChatTemplate):
    template = dataclasses.replace(template, date=chat_date)
  return Encoder(tokenizer, template, *others, **options)
