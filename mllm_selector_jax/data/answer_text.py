"""Where the tokens of a generated answer end, and the text that they say."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

# Ids of a row that was generated, or of any part of one.
Ids = Sequence[int] | Int[np.ndarray, " L"]


class AnswerReader:
  """Reads answers as the models that a conversation template is taught to write them.

  Args:
    tokenizer: a `tokenizers.Tokenizer`.
    end: id of the token that the template ends an answer with; None if text does.
    closing: text that ends an answer, before its `end` or in its place; "" for none.
    others: further ids that end an answer, such as the base's own.
  """

  def __init__(
    self, tokenizer: Any, end: int | None, closing: str, others: Sequence[int] = ()
  ):
    self._tokenizer = tokenizer
    self._end = end
    self._closing = closing
    self._others = others

  @functools.cached_property
  def ends(self) -> tuple[int, ...]:
    """Ids that end an answer, the template's own first where it is one token."""
    own = [] if self._end is None else [self._end]
    return tuple(dict.fromkeys([*own, *self._others, *self._closers]))

  @property
  def stops(self) -> bool:
    """Whether a single token ends every answer, so that a list of ids can say so."""
    return self._end is not None or bool(self._closers)

  @functools.cached_property
  def _closers(self) -> tuple[int, ...]:
    """The tokens that hold the closing text, where no special token ends an answer.

    A tokenizer may join a new line to the full stop before it, so there can be many.
    """
    if self._end is not None or not self._closing:
      return ()
    vocabulary = sorted(self._tokenizer.get_vocab().values())
    texts = self._tokenizer.decode_batch([[token] for token in vocabulary])
    return tuple(
      token
      for token, text in zip(vocabulary, texts, strict=True)
      if self._closing in text
    )

  def decode(self, ids: Ids) -> str:
    """Text of token ids, without the special ones and without outer blanks."""
    ids = [int(token) for token in ids]
    return self._tokenizer.decode(ids, skip_special_tokens=True).strip()

  def read(self, ids: Ids) -> str:
    """Text of an answer from its first token on, up to its end."""
    ids = [int(token) for token in ids]
    places = [place for place, token in enumerate(ids) if token in self.ends]
    if places:
      last = places[0]
      ids = ids[: last + (ids[last] in self._closers)]
    text = self.decode(ids)
    return text.partition(self._closing)[0].strip() if self._closing else text
