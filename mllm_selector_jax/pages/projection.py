"""Projects embeddings to a few dimensions for the map of the explorer."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import svds

COMPONENTS = 4


class Projection(NamedTuple):
  """The first principal components of embeddings.

  Attributes:
    places: The rows' coordinates, scaled so that the largest of a component is 1.
    shares: The share of the variance that each component has.
  """

  places: Float[np.ndarray, "n C"]
  shares: list[float]


def project(embeddings: Float[np.ndarray, "n E"]) -> Projection | None:
  """Project embeddings, scaled to unit length, onto their principal components.

  The components have signs in which their largest coordinate is positive.

  Returns:
    At most `COMPONENTS` components; None if there are not two, since the rows or the
    dimensions are too few or the embeddings are all alike.
  """
  length = np.linalg.norm(embeddings, axis=1, keepdims=True)
  centred = embeddings / np.maximum(length, 1e-30)
  centred -= centred.mean(0) if len(centred) else 0
  total = float(np.square(centred, dtype=np.float64).sum())
  number = min(COMPONENTS, *centred.shape)
  if number < 2 or total < 1e-9 * len(centred):
    return None
  if min(centred.shape) <= 2 * COMPONENTS:
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
  else:
    start = np.random.default_rng(0).normal(size=min(centred.shape))
    left, values, _ = svds(centred, number, v0=start.astype(centred.dtype))
  order = np.argsort(-values)[:number]
  places = left[:, order] * values[order]
  largest = places[np.abs(places).argmax(0), np.arange(number)]
  places = places / np.where(np.abs(largest) < 1e-9, 1, largest)
  shares = np.square(values[order].astype(np.float64)) / total
  return Projection(places, shares.tolist())
