"""Where the images of a question stand in its text."""

from mllm_selector_jax.data.tokens.conversation_templates import (
  IMAGE_LETTER,
  TEXT_LETTER,
)
from mllm_selector_jax.types import MARK


def split_question(
  text: str, leads: bool, breaks_line: bool
) -> tuple[str, tuple[str, ...]]:
  """Divides a question at the marks of its images.

  Args:
    text: of the question.
    leads: whether a question's only image stands first, wherever its mark is.
    breaks_line: whether line breaks beside an image are part of the text. A chat
      template that is given a list of parts writes line breaks of its own.

  Returns:
    A letter for each image and each text, in order, and the texts.
  """
  marks = text.count(MARK)
  if not marks:
    return TEXT_LETTER, (text,)
  if marks == 1 and leads:
    text = text.replace(MARK, "").strip()
    text = f"\n{text}" if text and breaks_line else text
    return IMAGE_LETTER + TEXT_LETTER, (text,)
  texts = text.strip().split(MARK)
  if not breaks_line:
    texts = [part.strip("\n") for part in texts]
  letters = IMAGE_LETTER.join(TEXT_LETTER if part else "" for part in texts)
  texts = [part for part in texts if part]
  return (letters, tuple(texts)) if texts else (letters + TEXT_LETTER, ("",))
