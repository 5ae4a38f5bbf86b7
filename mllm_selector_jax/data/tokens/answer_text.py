"""Finds where the tokens of a generated answer end, and decodes its text."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

# Token ids that a model generated.
Ids = Sequence[int] | Int[np.ndarray, " L"]


class AnswerReader:
  """Decodes the answers of models that were tuned with one conversation template.

  Args:
    tokenizer: a `tokenizers.Tokenizer`.
    end: the id of the token that ends an answer in the template; None if it is ended
      by text.
    closing: the text that ends an answer, before `end` or instead of it; "" if there
      is none.
    others: further ids that end an answer, such as the base model's own.
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
    """The ids that end an answer; the template's own token, if it has one, is first."""
    template_end = [] if self._end is None else [self._end]
    return tuple(dict.fromkeys([*template_end, *self._others, *self._closers]))

  @property
  def stops(self) -> bool:
    """Whether every answer ends with one of `ends`, so that generation can stop there.

    This is not so if the template ends answers with a text of several tokens.
    """
    return self._end is not None or bool(self._closers)

  @functools.cached_property
  def _closers(self) -> tuple[int, ...]:
    """The tokens whose text holds `closing`, if no special token ends an answer.

    There can be many, since a tokenizer may join a new line to the full stop before it.
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
    """Decodes ids to text, without special tokens and surrounding blanks."""
    ids = [int(token) for token in ids]
    return self._tokenizer.decode(ids, skip_special_tokens=True).strip()

  def read(self, ids: Ids) -> str:
    """Decodes an answer up to its end.

    Args:
      ids: the generated ids, which may continue after the end of the answer.
    """
    ids = [int(token) for token in ids]
    last = next((n for n, token in enumerate(ids) if token in self.ends), None)
    if last is not None:
      # The text of a closer before the closing text belongs to the answer.
      ids = ids[: last + (ids[last] in self._closers)]
    text = self.decode(ids)
    return text.partition(self._closing)[0].strip() if self._closing else text
