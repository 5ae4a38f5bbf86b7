"""How often a pool's turns spell special tokens: counted, and written for people."""

import collections
from collections.abc import Iterable, Mapping

from mllm_selector_jax.data.tokens.conversation import Encoder
from mllm_selector_jax.data.tokens.dialogue import Dialogue
from mllm_selector_jax.data.tokens.specials import Count
from mllm_selector_jax.types import Sample

_MOST_NAMES = 1000  # that are counted apart
_OTHERS = "others"
_SHOWN = 8  # names on a line
_LABELS = {"tokens": "kept as tokens", "text": "left as text"}


def count_row(encoder: Encoder, sample: Sample, dialogue: Dialogue) -> list[Count]:
  """The added tokens that a row's turns spell, as tokens and as text."""
  texts = [text for each in dialogue.rounds for text in each[:2]]
  if encoder.takes_system and dialogue.system:
    texts.append(dialogue.system)
  return list(encoder.specials.count(sample.tokens, texts))


class SpecialTally:
  """Counts the occurrences of each name, those that are tokens apart from the text."""

  def __init__(self):
    self._counts = {key: collections.Counter() for key in _LABELS}

  def add(self, counts: Iterable[Count]) -> None:
    """Counts what one row holds."""
    for count in counts:
      names = self._counts["tokens" if count.kept else "text"]
      known = count.name in names or len(names) < _MOST_NAMES
      names[count.name if known else _OTHERS] += count.times

  def result(self) -> dict[str, dict[str, int]]:
    """Occurrences by name, "tokens" and "text", the most frequent first."""
    return {
      key: dict(sorted(names.items(), key=lambda item: (-item[1], item[0])))
      for key, names in self._counts.items()
    }


def list_lines(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
  """Describes the result of a `SpecialTally`: a label, and the counts by name."""
  lines = []
  for key, label in _LABELS.items():
    names = counts.get(key)
    if names:
      shown = ", ".join(f"{_one_line(n)} {names[n]:,}" for n in list(names)[:_SHOWN])
      more = len(names) - _SHOWN
      shown += f" and {more:,} more names" if more > 0 else ""
      lines.append((f"special tokens {label}", f"{sum(names.values()):,} ({shown})"))
  return lines


def _one_line(name: str) -> str:
  name = "".join(letter if letter.isprintable() else " " for letter in name)
  return name if len(name) <= 40 else name[:39] + "…"
