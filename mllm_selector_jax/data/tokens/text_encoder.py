"""Tokenises the pieces of a row, and finds their learned and asked tokens."""

from collections.abc import Iterator, Sequence
from typing import Any

from mllm_selector_jax.data.tokens.literal_tokenizer import find_inside, find_span
from mllm_selector_jax.data.tokens.text_spans import EncodedPiece, Piece
from mllm_selector_jax.data.tokens.tokenizer_bounds import explaining_failures

Encodings = tuple[Iterator[Any], Iterator[Any]]


class TextEncoder:
  """The two forms of a base's tokenizer, and the pieces that rows share.

  Args:
    first: tokenises text that begins anew.
    after: tokenises text that goes on after a special token.
  """

  def __init__(self, first: Any, after: Any):
    self.first = first
    self._after = after
    self._shared: dict[tuple[str, bool], Any] = {}

  def encode(self, text: str, follows: bool) -> Any:
    """Tokenises a text; `follows` says that it goes on after a special token."""
    side = self._after if follows else self.first
    with explaining_failures():
      return side.encode(text, add_special_tokens=False)

  def encode_batches(self, first: Sequence[str], after: Sequence[str]) -> Encodings:
    """Tokenises many texts that begin anew, and many that go on."""
    with explaining_failures():
      begun, going_on = (
        iter(side.encode_batch(texts, add_special_tokens=False) if texts else ())
        for side, texts in ((self.first, first), (self._after, after))
      )
      return begun, going_on

  def encode_piece(
    self, piece: Piece, encodings: Encodings, splits: bool
  ) -> EncodedPiece:
    """Tokenises a piece of text.

    Args:
      piece: with a text.
      encodings: of `encode_batches`, from which the next one is taken, unless the
        piece is shared.
      splits: whether a prompt's end always is tokenised apart from its answer.
    """
    text = piece.text
    assert text is not None, "tokens and images are not encoded"
    if piece.shared:
      key = text, piece.follows
      if key not in self._shared:
        self._shared[key] = self.encode(*key)
      encoding = self._shared[key]
    else:
      encoding = next(encodings[piece.follows])
    ids, learned = encoding.ids, []
    for start, stop, turn in piece.learned:
      first, last, straddles = find_span(encoding, start, stop, text)
      if start and (straddles or splits) and len(piece.learned) == 1:
        # At inference the prompt ends here, and the answer begins a token.
        asked = self.encode(text[:start], piece.follows)
        said = self.encode(text[start:], True)
        _, last, _ = find_span(said, 0, stop - start, text[start:])
        questions = find_inside(asked, piece.asked, text[:start])
        learned = [(len(asked.ids), len(asked.ids) + last, turn)]
        return EncodedPiece(asked.ids + said.ids, learned, questions)
      learned.append((first, last, turn))
    return EncodedPiece(ids, learned, find_inside(encoding, piece.asked, text))

  def must_split(self, prompt: Sequence[Piece]) -> bool:
    """Whether a prompt's end has other tokens as soon as an answer follows."""
    last = prompt[-1] if prompt else None
    if last is None or last.text is None:
      return False
    ids = self.encode(last.text.rstrip(" "), last.follows).ids
    return self.encode(f"{last.text}a", last.follows).ids[: len(ids)] != ids
