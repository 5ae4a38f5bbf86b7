"""The bound `probe`: the mixture on what a refitted head says of an answer.

The head is refitted on the stored embeddings, fold by fold, and near rows have a say.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.bounds import thorough
from mllm_selector_jax.selection.bounds.bound import Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Doubt, Suspects, find_doubted
from mllm_selector_jax.selection.pairwise import make_blocks

FOLDS = 4
NEIGHBOURS = 10
_RIDGE = 1e-3  # penalty, as a share of the embeddings' mean square
_STEP = 1 << 12  # rows whose scores are computed at once


def probe(
  embeddings: Float[np.ndarray, "N D"],
  label: Int[np.ndarray, " N"],
  part: Int[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
) -> Doubt:
  """One less the answer's support from a cross-fitted head and from near rows.

  The head is a one-against-all ridge regression on all folds but the row's own; the
  near rows are the `NEIGHBOURS` of highest cosine of the row's group and of another
  content. Support is the mean of both.

  Args:
    embeddings: of length 1.
    label: what each answer begins with, from 0; -1 where it is not known.
    part: the fold of each row, from 0.
    groups: of each row.
    tie: a draw a row by its content.

  Returns:
    Doubt; nothing is known of rows without a label.
  """
  known = label >= 0
  loss, right = np.full(len(label), np.nan), np.zeros(len(label))
  if not known.any():
    return Doubt(loss, right)
  rows = np.flatnonzero(known)
  support, hit = _cross_fit(embeddings[rows], label[rows], part[rows])
  near = agree(embeddings, label, groups, tie, known)[rows]
  loss[rows] = 1 - (np.clip(support, 0, 1) + near) / 2
  right[rows] = hit
  return Doubt(loss, right)


def _cross_fit(x, label, part):
  _, label = np.unique(label, return_inverse=True)
  count = int(label.max()) + 1
  x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], 1).astype(np.float64)
  support, hit = np.zeros(len(x)), np.zeros(len(x))
  for fold in np.unique(part):
    own = part == fold
    weights = _fit(x[~own], label[~own], count)
    for start in range(0, int(own.sum()), _STEP):
      rows = np.flatnonzero(own)[start : start + _STEP]
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
  """The share of a row's nearest neighbours with its label; one half without any."""
  share = np.full(len(label), 0.5)
  count = int(groups.max(initial=-1)) + 1
  nobody = np.zeros(len(label), bool)
  for block in make_blocks(np.flatnonzero(known), groups, count, tie, nobody, False):
    cosine = embeddings[block] @ embeddings[block].T
    cosine[tie[block][:, None] == tie[block]] = -2  # itself, and its copies
    most = min(NEIGHBOURS, len(block) - 1)
    if most < 1:
      continue
    near = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
    other = np.take_along_axis(cosine, near, 1) > -2
    same = (label[block][near] == label[block][:, None]) & other
    share[block] = np.where(
      other.any(1), same.sum(1) / np.maximum(other.sum(1), 1), 0.5
    )
  return share


def count_flops(
  width: int, label: Int[np.ndarray, " N"], groups: Int[np.ndarray, " N"]
) -> float:
  """What `probe` multiplies and adds: products of matrices alone."""
  known = label >= 0
  rows, classes = int(known.sum()), len(np.unique(label[known]))
  pairs = float((np.bincount(groups[known]).astype(np.float64) ** 2).sum())
  head = 2.0 * rows * width * ((FOLDS - 1) * width + classes)
  solved = FOLDS * width**2 * (2 * width / 3 + 2 * classes)
  return head + solved + 2.0 * pairs * width


def find(inputs: Inputs) -> Suspects:
  """Rows of the upper hump of the head's doubt that it does not get right."""
  assert inputs.doubt is not None, "`held_out` asks for it"
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
