"""A metric: whether the first word is right."""


def first_word(prediction, answers):
  """1 if the first word of the prediction is that of an answer, whatever its case."""
  first = prediction.lower().split()[:1]
  return float(any(first == answer.lower().split()[:1] for answer in answers))
