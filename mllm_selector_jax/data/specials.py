"""Which added tokens of a tokenizer a turn's text may hold, and which stay text in it.

A pool's text must not be able to begin a turn, to end an answer or to stand for an
image. So a token that frames conversations is text wherever a turn spells it, and a
special token that says something of the content, such as `<box>` or `<loc_12>`, is the
token that it is to the base.
"""

import collections
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.types import InputError

AUTO, NONE = "auto", "none"
Choice = str | tuple[str, ...]

_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_SPEAKERS = frozenset(
  "im inst sys system user assistant human bot chatbot developer observation ipython"
  " message channel constrain utterance eot eom eod eoh eoa".split()
)
# These do so beside a word of an edge, as in <start_of_turn>; a page's header does not.
_PARTS = frozenset("turn header".split())
_EDGES = frozenset("begin start end stop bos eos".split())
_IMAGES = frozenset(
  "image images img imgpad imgs boi eoi video videos audio vision slice".split()
)
# Calls of tools, code to be filled in, and places kept free.
_OTHERS = frozenset(
  "tool tools toolcall python plugin interpreter function functions fim repo reponame"
  " filename reserved unused extra control placeholder".split()
)
# Names that say one of these and no more, as <|end|> and <|begin_of_text|>.
_WHOLE = frozenset("of text sentence document stream sequence prompt".split())
_ALONE = frozenset(
  "s unk pad sep cls mask gmask sop eop call return turn pre suf mid endoftext"
  " startoftext endofprompt endofturn endofchunk".split()
)


class Count(NamedTuple):
  """How often a row's turns spell an added token.

  Attributes:
    name: the token's text.
    kept: whether it is the token there; otherwise it stands as text.
    times: that it occurs.
  """

  name: str
  kept: bool
  times: int


def read_choice(value: Any) -> Choice:
  """The value of model.content_specials.

  Args:
    value: "auto", "none", or names of tokens: a list, or with commas.

  Raises:
    InputError: it is none of these.
  """
  names = value.split(",") if isinstance(value, str) else value
  if not isinstance(names, list | tuple) or not all(isinstance(x, str) for x in names):
    raise InputError(
      f"model.content_specials={value!r}: allowed are {AUTO}, {NONE}, and names of"
      " special tokens: a list, or with commas."
    )
  names = tuple(name.strip() for name in names if name.strip())
  if not names:
    raise InputError(
      f"model.content_specials={value!r} names no token; {NONE} is written for none."
    )
  return names[0] if names in ((AUTO,), (NONE,)) else names


class Specials:
  """The added tokens of a tokenizer, divided.

  Args:
    tokenizer: a fast one of transformers.
    image_token: id that stands for a patch of the image.
    written: ids that the conversation template writes.
    ends: ids that end an answer.
    choice: "auto" keeps the id of special tokens for content, "none" of no special
      token, and names keep the id of these.

  Attributes:
    literal: ids that are text where a turn spells them.

  Raises:
    InputError: a name that is no added token, or one that frames the conversation.
  """

  def __init__(
    self,
    tokenizer: Any,
    image_token: int,
    written: Collection[int],
    ends: Collection[int] = (),
    choice: Choice = AUTO,
  ):
    added = tokenizer.added_tokens_decoder
    names = {token: each.content for token, each in added.items()}
    special = {token for token, each in added.items() if each.special}
    special |= set(tokenizer.all_special_ids) & added.keys()
    frame = {image_token, *written, *ends}
    frame |= _find_roles(tokenizer)
    sources = _chat_sources(tokenizer)
    frame |= {token for token in special if names[token] in sources}
    if isinstance(choice, tuple):
      wanted = _find_named(choice, names, frame)
      text = special - wanted
    else:
      named = {token for token in added if _frames(names[token], token in special)}
      text = special if choice == NONE else special & (frame | named)
      # Another added token is what the tokenizer makes of it, unless it is of turns.
      text |= named
    self.literal = frozenset(text | (frame & added.keys()))
    kept = {
      token: name
      for token, name in names.items()
      if token not in self.literal and name.strip()
    }
    self._kept = kept
    self._is_kept = np.zeros(max(names, default=0) + 1, bool)
    self._is_kept[list(kept)] = True
    counted = sorted(
      (names[token] for token in self.literal if token != image_token),
      key=len,
      reverse=True,
    )
    self._text = re.compile("|".join(map(re.escape, counted))) if counted else None
    self._hints = sorted({name[:2] for name in counted})

  def count(
    self, tokens: Int[np.ndarray, " L"], texts: Sequence[str]
  ) -> Iterator[Count]:
    """What of the added tokens a row's turns hold.

    Args:
      tokens: of the row. The template writes none of those that are kept.
      texts: of its turns.
    """
    low = tokens[tokens < len(self._is_kept)]
    if self._kept and self._is_kept[low].any():
      found, times = np.unique(low[self._is_kept[low]], return_counts=True)
      for token, number in zip(found.tolist(), times.tolist(), strict=True):
        yield Count(self._kept[token], True, number)
    if self._text is None:
      return
    # Looking for their beginnings first is many times as fast as the pattern.
    text = "\0".join(texts)
    if any(hint in text for hint in self._hints):
      spelled = collections.Counter(self._text.findall(text))
      for name, number in sorted(spelled.items()):
        yield Count(name, False, number)


def _chat_sources(tokenizer: Any) -> str:
  """All chat templates that a tokenizer brings, as one text."""
  sources = tokenizer.chat_template or ""
  return "\0".join(sources.values()) if isinstance(sources, dict) else sources


def _find_roles(tokenizer: Any) -> set[int | None]:
  """The tokens that a tokenizer names by what they are for, as pad_token is."""
  ids = {getattr(tokenizer, f"{role}_token_id") for role in _ROLES}
  for role, name in tokenizer.special_tokens_map.items():
    if isinstance(name, str) and _frames(f"<{role}>", True):
      ids.add(tokenizer.convert_tokens_to_ids(name))
  return ids


def _find_named(
  choice: tuple[str, ...], names: dict[int, str], frame: Collection[int | None]
) -> set[int]:
  ids = {name: token for token, name in names.items()}
  if unknown := [name for name in choice if name not in ids]:
    raise InputError(
      f"model.content_specials names {', '.join(unknown)}, which the base's tokenizer"
      " does not have as an added token. Add it to the tokenizer, or leave it out."
    )
  if framing := [name for name in choice if ids[name] in frame]:
    raise InputError(
      f"model.content_specials names {', '.join(framing)}, which the conversation or"
      " the base's chat template writes, or which begins or ends a text: a row's text"
      " must not hold it as a token. Leave it out."
    )
  return {ids[name] for name in choice}


def _frames(name: str, special: bool) -> bool:
  """Whether a token's name is of those that frame something, in any chat format.

  Args:
    name: the token's text.
    special: whether it is a special token. Of the others, which a tokenizer makes of
      text anyway, only names of turns count, in brackets as `<|im_start|>` is.
  """
  words = re.findall(r"[^\W\d_]+", name.lower())
  found, numbered = set(words), any(letter.isdigit() for letter in name)
  if special or name.lstrip("\u2581 ").startswith(("<", "[")):
    if found & _SPEAKERS or (found & _PARTS and found & _EDGES):
      return True
  if not special:
    return False
  if not words:
    return not name.lstrip("\u2581 ").startswith(("<", "["))
  if found & (_IMAGES | _OTHERS):
    return True
  if numbered:
    return False
  return found <= _ALONE or bool(found & _EDGES and found <= _EDGES | _WHOLE)
