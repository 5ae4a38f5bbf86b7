"""Names the format of a row's answers, by how long they are and how many there are."""

import numpy as np
from jaxtyping import Int

# The most tokens of an answer of each length, with the token that ends it.
LENGTHS = {"words": 4, "phrases": 16, "sentences": 64}
LONGEST = "texts"
ROUNDS = "several rounds"


def name_formats(
  turns: Int[np.ndarray, " N"], supervised: Int[np.ndarray, " N"]
) -> np.ndarray:
  """Returns the name of each row's format, as N texts.

  Answers of up to 4 tokens on average are "words", up to 16 "phrases", up to 64
  "sentences", and longer ones "texts". Rows of several rounds have formats of their
  own, such as "words, several rounds".

  Args:
    turns: the number of answers of each row.
    supervised: the number of their tokens.
  """
  mean = supervised / np.maximum(turns, 1)
  length = np.searchsorted(list(LENGTHS.values()), mean)
  short = np.array([*LENGTHS, LONGEST], object)
  long = np.array([f"{name}, {ROUNDS}" for name in short], object)
  return np.where(turns > 1, long[length], short[length])
