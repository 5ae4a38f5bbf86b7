"""The bound `probe`: the bound `mixture` on the judgement of a linear head.

The head is fitted to the stored embeddings by cross-fitting, and its support for each
answer is averaged with the agreement of the row's nearest neighbours.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.bounds import thorough
from mllm_selector_jax.selection.bounds.bound import Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Doubt, Suspects, find_doubted
from mllm_selector_jax.selection.pairwise.blocks import make_blocks

FOLDS = 4
NEIGHBOURS = 10
_RIDGE = 1e-3  # the penalty, relative to the mean diagonal of the Gram matrix
_STEP = 1 << 12  # rows whose scores are computed at a time


def probe(
  embeddings: Float[np.ndarray, "N D"],
  label: Int[np.ndarray, " N"],
  part: Int[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
) -> Doubt:
  """Judges each answer by a cross-fitted head and by the row's nearest neighbours.

  The head is a one-against-all ridge regression, fitted on all folds but that of the
  row. The neighbours are the `NEIGHBOURS` rows of the highest cosine in the same group,
  without copies of the row. The loss is 1 - (support of the head + share of neighbours
  with the same label) / 2.

  Args:
    embeddings: vectors of length 1.
    label: the class of each answer, its first token, as a number from 0; -1 if it is
      not known.
    part: the fold of each row, from 0.
    groups: the group of each row, from 0.
    tie: a random number for each row, drawn from its content.

  Returns:
    The judgement of each row; rows without a label are not judged.
  """
  known = label >= 0
  loss, right = np.full(len(label), np.nan), np.zeros(len(label))
  if not known.any():
    return Doubt(loss, right)
  rows = np.flatnonzero(known)
  support, hit = _cross_fit(embeddings[rows], label[rows], part[rows])
  agreement = agree(embeddings, label, groups, tie, known)[rows]
  loss[rows] = 1 - (np.clip(support, 0, 1) + agreement) / 2
  right[rows] = hit
  return Doubt(loss, right)


def _cross_fit(x, label, part):
  """Returns the head's score of each row's label, and whether it is the highest."""
  _, label = np.unique(label, return_inverse=True)
  count = int(label.max()) + 1
  x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], 1).astype(np.float64)
  support, hit = np.zeros(len(x)), np.zeros(len(x))
  for fold in np.unique(part):
    in_fold = part == fold
    weights = _fit(x[~in_fold], label[~in_fold], count)
    for start in range(0, int(in_fold.sum()), _STEP):
      rows = np.flatnonzero(in_fold)[start : start + _STEP]
      scores = np.rint(x[rows] @ weights * 2.0**32) * 2.0**-32
      support[rows] = scores[np.arange(len(rows)), label[rows]]
      hit[rows] = scores.argmax(1) == label[rows]
  return support, hit


def _fit(x, label, count) -> Float[np.ndarray, "D C"]:
  sums = np.zeros((count, x.shape[1]))
  np.add.at(sums, label, x)
  square = x.T @ x
  penalty = _RIDGE * np.trace(square) / len(square)
  return np.linalg.solve(square + penalty * np.eye(len(square)), sums.T)


def agree(
  embeddings: Float[np.ndarray, "N D"],
  label: Int[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
  known: Bool[np.ndarray, " N"],
) -> Float[np.ndarray, " N"]:
  """Returns the share of each row's nearest neighbours that have its label.

  Arguments are as for `probe`; `known` says which rows have a label. A row without
  neighbours gets one half.
  """
  share = np.full(len(label), 0.5)
  for block in make_blocks(np.flatnonzero(known), groups, tie):
    cosine = embeddings[block] @ embeddings[block].T
    cosine[tie[block][:, None] == tie[block]] = -2  # the row itself and its copies
    neighbours = min(NEIGHBOURS, len(block) - 1)
    if neighbours < 1:
      continue
    near = np.argpartition(-cosine, neighbours - 1, axis=1)[:, :neighbours]
    other = np.take_along_axis(cosine, near, 1) > -2
    same = (label[block][near] == label[block][:, None]) & other
    share[block] = np.where(
      other.any(1), same.sum(1) / np.maximum(other.sum(1), 1), 0.5
    )
  return share


def count_flops(
  width: int, label: Int[np.ndarray, " N"], groups: Int[np.ndarray, " N"]
) -> float:
  """Returns the FLOPs of `probe`, of which only matrix products are counted.

  Args:
    width: the number of dimensions of the embeddings.
    label, groups: as for `probe`.
  """
  known = label >= 0
  rows, classes = int(known.sum()), len(np.unique(label[known]))
  pairs = float((np.bincount(groups[known]).astype(np.float64) ** 2).sum())
  head = 2.0 * rows * width * ((FOLDS - 1) * width + classes)
  solved = FOLDS * width**2 * (2 * width / 3 + 2 * classes)
  return head + solved + 2.0 * pairs * width


def find(inputs: Inputs) -> Suspects:
  """Finds rows in the upper mode of the loss that the head gets wrong."""
  assert inputs.doubt is not None, "given to bounds with `held_out`"
  return find_doubted(inputs.doubt, inputs.groups, inputs.answers)


BOUND = Bound(
  find,
  words="the mixture and its gate on a held-out loss: a head is refitted on the stored"
  " embeddings (a one-against-all ridge regression in four folds), and its support for"
  " the first token of the answer is averaged with the share of the ten nearest rows of"
  " the cluster that begin in the same way; rows of several turns are left alone",
  reason=thorough.REASON,
  cost="no pass over the pool",
  held_out="probe",
  by_skill=True,
)
