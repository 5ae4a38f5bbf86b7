"""The bound `probe`: the bound `mixture` on the judgement of a linear head.

The head is fitted to the stored embeddings by cross-fitting, and its support for each
answer is averaged with the agreement of the row's nearest neighbours.
"""

import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax.selection.bounds import thorough
from mllm_selector_jax.selection.bounds.bound import Bound, Inputs
from mllm_selector_jax.selection.heldout_loss import Doubt, Suspects, find_doubted
from mllm_selector_jax.selection.overseer import NOBODY, Overseer
from mllm_selector_jax.selection.pairwise.blocks import sort_by_group
from mllm_selector_jax.selection.pairwise.unit_rows import STEP, UnitRows

FOLDS = 4
NEIGHBOURS = 10
_PART_ROWS = 1 << 19  # rows whose neighbours are held at a time
_RIDGE = 1e-3  # the penalty, relative to the mean diagonal of the Gram matrix


def probe(
  vectors: UnitRows,
  label: Int[np.ndarray, " N"],
  part: Int[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
  overseer: Overseer = NOBODY,
) -> Doubt:
  """Judges each answer by a cross-fitted head and by the row's nearest neighbours.

  The head is a one-against-all ridge regression, fitted on all folds but that of the
  row. The neighbours are the `NEIGHBOURS` rows of the highest cosine in the same group,
  without copies of the row. The loss is 1 - (support of the head + share of neighbours
  with the same label) / 2. Rows are read in parts, twice for the head.

  Args:
    vectors: the embeddings.
    label: the class of each answer, its first token, as a number from 0; -1 if it is
      not known.
    part: the fold of each row, from 0 to `FOLDS` - 1.
    groups: the group of each row, from 0.
    tie: a random number for each row, drawn from its content.
    overseer: watches both steps, and keeps what the neighbours say.

  Returns:
    The judgement of each row; rows without a label are not judged.
  """
  known = label >= 0
  loss, right = np.full(len(label), np.nan), np.zeros(len(label))
  if not known.any():
    return Doubt(loss, right)
  rows = np.flatnonzero(known)
  with overseer.watch("head") as progress:
    support, hit = _cross_fit(vectors, rows, label[rows], part[rows], progress)
  agreement = agree(vectors, label, groups, tie, known, overseer)[rows]
  loss[rows] = 1 - (np.clip(support, 0, 1) + agreement) / 2
  right[rows] = hit
  return Doubt(loss, right)


def _cross_fit(vectors, rows, label, part, progress):
  """Returns the head's score of each row's label, and whether it is the highest."""
  _, label = np.unique(label, return_inverse=True)
  count, width = int(label.max()) + 1, vectors.shape[1] + 1
  square = np.zeros((FOLDS, width, width))
  sums = np.zeros((FOLDS, count, width))
  for here, x in _read(vectors, rows):
    for fold in np.unique(part[here]):
      in_fold = part[here] == fold
      square[fold] += x[in_fold].T @ x[in_fold]
      np.add.at(sums[fold], label[here][in_fold], x[in_fold])
    progress(here.start + len(x), 2 * len(rows))
  weights = np.stack([_solve(square, sums, fold) for fold in range(FOLDS)])
  support, hit = np.zeros(len(rows)), np.zeros(len(rows))
  for here, x in _read(vectors, rows):
    places = np.arange(here.start, here.start + len(x))
    for fold in np.unique(part[here]):
      of_fold = part[here] == fold
      inside, own = places[of_fold], label[places[of_fold]]
      scores = np.rint(x[of_fold] @ weights[fold] * 2.0**32) * 2.0**-32
      support[inside] = scores[np.arange(len(inside)), own]
      hit[inside] = scores.argmax(1) == own
    progress(len(rows) + here.start + len(x), 2 * len(rows))
  return support, hit


def _read(vectors, rows):
  """Yields places of rows, and their vectors in float64 with a last column of 1."""
  for start in range(0, len(rows), STEP):
    here = slice(start, start + STEP)
    x = vectors.rows(rows[here]).astype(np.float64)
    yield here, np.concatenate([x, np.ones((len(x), 1))], 1)


def _solve(square, sums, fold) -> Float[np.ndarray, "D1 C"]:
  """Fits the head to the rows of all other folds."""
  others = np.arange(FOLDS) != fold
  square, sums = square[others].sum(0), sums[others].sum(0)
  penalty = _RIDGE * np.trace(square) / len(square)
  return np.linalg.solve(square + penalty * np.eye(len(square)), sums.T)


def agree(
  vectors: UnitRows,
  label: Int[np.ndarray, " N"],
  groups: Int[np.ndarray, " N"],
  tie: UInt64[np.ndarray, " N"],
  known: Bool[np.ndarray, " N"],
  overseer: Overseer = NOBODY,
) -> Float[np.ndarray, " N"]:
  """Returns the share of each row's nearest neighbours that have its label.

  Arguments are as for `probe`; `known` says which rows have a label. A row without
  neighbours gets one half.
  """
  ordered = sort_by_group(np.flatnonzero(known), groups, tie)
  own, ties = label[ordered.rows], tie[ordered.rows]
  keeper = overseer.keep(
    "neighbours", vectors, ordered.rows, ordered.groups, own, ties, NEIGHBOURS
  )
  shares = [part["share"] for part in keeper.read()]
  with overseer.watch("neighbours") as progress:
    for part in _cut(ordered.starts, sum(map(len, shares))):
      columns = (ordered.rows, own, ordered.groups, ties)
      shares.append(_agree(vectors, *(column[part] for column in columns)))
      keeper.add(share=shares[-1])
      progress(part.stop, len(ordered.rows))
  share = np.full(len(label), 0.5)
  share[ordered.rows] = np.concatenate([share[:0], *shares])
  return share


def _cut(starts: Int[np.ndarray, " G1"], begin: int) -> Iterator[slice]:
  """Yields the places of whole groups, of `_PART_ROWS` rows or more together."""
  while begin < starts[-1]:
    here = min(int(np.searchsorted(starts, begin + _PART_ROWS)), len(starts) - 1)
    yield slice(begin, int(starts[here]))
    begin = int(starts[here])


def _agree(vectors, rows, label, groups, tie) -> Float[np.ndarray, " n"]:
  """Returns what `agree` does, for rows sorted by group."""
  from mllm_selector_jax.selection.pairwise import kernels, row_tiles  # imports jax

  # Copies of a row have its mark, by which they are not compared with it.
  _, first, mark = np.unique(tie, return_index=True, return_inverse=True)
  tiles = row_tiles.Tiles(vectors, rows, mark, groups)
  start = kernels.no_neighbours(tiles.size, NEIGHBOURS)
  function = functools.partial(kernels.nearest, mask=kernels.others_of_group)
  states = row_tiles.fold(function, start, tiles, tiles, tiles.with_groups_of)
  found = row_tiles.gather(start, tiles, states).mark
  there = found >= 0
  same = there & (label[first][found] == label[:, None])
  return np.where(there.any(1), same.sum(1) / np.maximum(there.sum(1), 1), 0.5)


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
