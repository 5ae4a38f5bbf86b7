"""What of a rendered conversation is learned, where its template does not mark it.

Few published chat templates enclose what the assistant says in `{% generation %}`.
Where they do not, the conversation is rendered up to each question, as it is at
inference, and up to each answer. What the second has beyond the first is the answer's.
Where a template writes no token behind an answer, the one with which the next message
begins ends it (GLM-4): a model that never learned that would not stop.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# Renders messages; the second argument says whether the next answer is asked for.
RenderText = Callable[[Sequence[dict[str, Any]], bool], str]


def find_learned_spans(
  render: RenderText,
  messages: Sequence[dict[str, Any]],
  answers: Sequence[str],
  specials: Iterable[str],
) -> tuple[str, list[tuple[int, int]]]:
  """Finds the spans that are learned: each answer, with the token that ends it.

  Args:
    render: the template.
    messages: of the conversation, whose last one is an answer.
    answers: the texts of the answers, each of which stands once in the whole text.
    specials: special tokens as text. An answer ends with the first one behind it in its
      message, or with the one with which the next message begins; where there is
      neither, with all that the template writes for its message.

  Returns:
    The whole text, with the token that ends the last answer, and start and stop of each
    span in it.

  Raises:
    ValueError: the beginning of a conversation is rendered otherwise when the
      conversation goes on, so that no span can be found.
  """
  text = render(messages, False)
  ends = re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True))))
  first = len(messages) - 2 * len(answers)
  spans = []
  for turn, answer in enumerate(answers):
    asked = render(messages[: first + 2 * turn + 1], True)
    said = render(messages[: first + 2 * turn + 2], False)
    # At inference a blank behind the prompt is left out, and learned with the answer.
    start, stop = len(asked.rstrip(" ")), len(said)
    if text[:start] != asked[:start] or text[:stop] != said:
      raise ValueError(f"round {turn + 1} is written otherwise when more rounds follow")
    place = text.find(answer.strip(), start, stop)
    if place < 0:
      raise ValueError(f"round {turn + 1} is asked for behind its own answer")
    behind = place + len(answer.strip())
    end = ends.search(text, behind, stop) if ends.pattern else None
    if end is None and ends.pattern:
      if turn == len(answers) - 1:
        text = _add_next(render, messages, text, messages[first], ends)
      end = ends.match(text, stop)
    spans.append((start, end.end() if end else stop))
  return text, spans


def _add_next(
  render: RenderText,
  messages: Sequence[dict[str, Any]],
  text: str,
  question: dict[str, Any],
  ends: re.Pattern[str],
) -> str:
  """The text of the messages with the token with which a next one would begin."""
  more = render([*messages, question], False)
  following = ends.match(more, len(text)) if more.startswith(text) else None
  return text + following[0] if following else text
