"""A conversation as the messages that chat templates take."""

from collections.abc import Iterator, Sequence
from typing import Any

from mllm_selector_jax.data.tokens.conversation_templates import TEXT_LETTER


def make_messages(
  letters: Sequence[str],
  questions: Sequence[str],
  answers: Sequence[str],
  system: str = "",
  image_mark: str | None = None,
) -> list[dict[str, Any]]:
  """Returns a conversation as messages.

  Args:
    letters: what the question of each round holds, in order: a letter for each image
      and each text, see `TemplateLayout`.
    questions: the texts of all questions, one after the other.
    answers: of all rounds.
    system: the text of a system message before them; "" for none.
    image_mark: stands for an image where a message is plain text. None writes each
      message as a list of parts, which multimodal templates expect.
  """
  texts = iter(questions)

  def make_content(letters: str, texts: Iterator[str]) -> Any:
    parts = [
      {"type": "text", "text": next(texts)}
      if letter == TEXT_LETTER
      else {"type": "image"}
      for letter in letters
    ]
    if image_mark is None:
      return parts
    return "".join(part.get("text", image_mark) for part in parts)

  messages = []
  if system:
    content = make_content(TEXT_LETTER, iter([system]))
    messages.append({"role": "system", "content": content})
  for asked, answer in zip(letters, answers, strict=True):
    said = make_content(TEXT_LETTER, iter([answer]))
    messages += [
      {"role": "user", "content": make_content(asked, texts)},
      {"role": "assistant", "content": said},
    ]
  return messages
