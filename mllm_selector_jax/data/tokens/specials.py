"""Decides which added tokens of a tokenizer are recognised in the text of a turn.

The text of a pool must not be able to begin a turn, to end an answer or to stand for an
image. A token that frames conversations is therefore encoded as ordinary text if a turn
contains its name. A special token that describes content, such as `<box>` or
`<loc_12>`, keeps its id.
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
# These words frame a conversation only together with one of `_EDGES`, as in
# <start_of_turn>; the header of a page is content.
_PARTS = frozenset("turn header".split())
_EDGES = frozenset("begin start end stop bos eos".split())
_IMAGES = frozenset(
  "image images img imgpad imgs boi eoi video videos audio vision slice".split()
)
# Tool calls, markers for filling in code, and unused reserved tokens.
_OTHERS = frozenset(
  "tool tools toolcall python plugin interpreter function functions fim repo reponame"
  " filename reserved unused extra control placeholder".split()
)
# A name frames a text if it consists of `_EDGES` and these words, as <|end|> and
# <|begin_of_text|>, or of words of `_ALONE`.
_WHOLE = frozenset("of text sentence document stream sequence prompt".split())
_ALONE = frozenset(
  "s unk pad sep cls mask gmask sop eop call return turn pre suf mid endoftext"
  " startoftext endofprompt endofturn endofchunk".split()
)


class Count(NamedTuple):
  """How often an added token occurs in the turns of a row.

  Attributes:
    name: the token's text.
    kept: whether it keeps its id; otherwise it is encoded as text.
    times: the number of occurrences.
  """

  name: str
  kept: bool
  times: int


def read_choice(value: Any) -> Choice:
  """Parses `model.content_specials`.

  Args:
    value: "auto", "none", or names of tokens, in a list or separated by commas.

  Raises:
    InputError: the value is none of these.
  """
  names = value.split(",") if isinstance(value, str) else value
  if not isinstance(names, list | tuple) or not all(isinstance(x, str) for x in names):
    raise InputError(
      f"model.content_specials={value!r}: allowed are {AUTO}, {NONE}, and names of"
      " special tokens, in a list or separated by commas."
    )
  names = tuple(name.strip() for name in names if name.strip())
  if not names:
    raise InputError(
      f"model.content_specials={value!r} names no token; write {NONE} for none."
    )
  return names[0] if names in ((AUTO,), (NONE,)) else names


class Specials:
  """Divides the added tokens of a tokenizer into those kept and those taken as text.

  Args:
    tokenizer: a fast tokenizer of transformers.
    image_token: the id that stands for a patch of the image.
    written: ids that the conversation template writes.
    ends: ids that end an answer.
    choice: the special tokens that keep their ids in a turn: "auto" for those that
      describe content, "none" for none of them, or their names.

  Attributes:
    literal: the ids of tokens whose names are encoded as ordinary text in a turn.

  Raises:
    InputError: `choice` names a token that is not an added token, or one that frames
      the conversation.
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
    names = {token: entry.content for token, entry in added.items()}
    special = {token for token, entry in added.items() if entry.special}
    special |= set(tokenizer.all_special_ids) & added.keys()
    frame: set[int | None] = {image_token, *written, *ends}
    frame |= _find_roles(tokenizer)
    sources = _chat_sources(tokenizer)
    frame |= {token for token in special if names[token] in sources}
    if isinstance(choice, tuple):
      chosen = _find_named(choice, names, frame)
      literal = special - chosen
    else:
      framing = {token for token in added if _frames(names[token], token in special)}
      literal = special if choice == NONE else special & (frame | framing)
      # Added tokens that are not special keep their ids, unless they frame turns.
      literal |= framing
    self.literal = frozenset(literal | (frame & added.keys()))
    kept = {
      token: name
      for token, name in names.items()
      if token not in self.literal and name.strip()
    }
    self._kept = kept
    self._is_kept = np.zeros(max(names, default=0) + 1, bool)
    self._is_kept[list(kept)] = True
    # Longer names first, since the pattern takes the first alternative that matches.
    literal_names = sorted(
      (names[token] for token in self.literal if token != image_token),
      key=len,
      reverse=True,
    )
    pattern = "|".join(map(re.escape, literal_names))
    self._literal_pattern = re.compile(pattern) if literal_names else None
    self._hints = sorted({name[:2] for name in literal_names})

  def count(
    self, tokens: Int[np.ndarray, " L"], texts: Sequence[str]
  ) -> Iterator[Count]:
    """Counts the added tokens in the turns of a row.

    Args:
      tokens: the token ids of the row. The template writes none of the kept tokens.
      texts: the texts of its turns.
    """
    candidates = tokens[tokens < len(self._is_kept)]
    if self._kept and self._is_kept[candidates].any():
      kept, counts = np.unique(
        candidates[self._is_kept[candidates]], return_counts=True
      )
      for token, times in zip(kept.tolist(), counts.tolist(), strict=True):
        yield Count(self._kept[token], True, times)
    if self._literal_pattern is None:
      return
    # Searching for the first two characters is many times as fast as the pattern.
    text = "\0".join(texts)
    if any(hint in text for hint in self._hints):
      occurrences = collections.Counter(self._literal_pattern.findall(text))
      for name, times in sorted(occurrences.items()):
        yield Count(name, False, times)


def _chat_sources(tokenizer: Any) -> str:
  """Returns all chat templates of a tokenizer, joined to one text."""
  sources = tokenizer.chat_template or ""
  return "\0".join(sources.values()) if isinstance(sources, dict) else sources


def _find_roles(tokenizer: Any) -> set[int | None]:
  """Returns the tokens that have a role in the tokenizer, such as `pad_token`."""
  ids = {getattr(tokenizer, f"{role}_token_id") for role in _ROLES}
  for role, name in tokenizer.special_tokens_map.items():
    if isinstance(name, str) and _frames(f"<{role}>", True):
      ids.add(tokenizer.convert_tokens_to_ids(name))
  return ids


def _find_named(
  choice: tuple[str, ...], names: dict[int, str], frame: Collection[int | None]
) -> set[int]:
  """Returns the ids of the tokens that `model.content_specials` names."""
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
  """Returns whether a token's name suggests that it frames turns, texts or images.

  Args:
    name: the token's text.
    special: whether it is a special token. An added token that is not special frames
      something only if its name is bracketed and names a turn, as `<|im_start|>` does.
  """
  words = set(re.findall(r"[^\W\d_]+", name.lower()))
  is_bracketed = name.lstrip("\u2581 ").startswith(("<", "["))
  if special or is_bracketed:
    if words & _SPEAKERS or (words & _PARTS and words & _EDGES):
      return True
  if not special:
    return False
  if not words:
    return not is_bracketed
  if words & (_IMAGES | _OTHERS):
    return True
  if any(letter.isdigit() for letter in name):
    return False
  return words <= _ALONE or bool(words & _EDGES and words <= _EDGES | _WHOLE)
