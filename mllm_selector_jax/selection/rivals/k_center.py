"""k-center greedy: every row should be near a kept row."""

import numpy as np
from jaxtyping import Int

from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.limited import open_room
from mllm_selector_jax.selection.limits import Room
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, first, most_rows
from mllm_selector_jax.selection.overseer import NOBODY, Overseer
from mllm_selector_jax.selection.pairwise.unit_rows import UnitRows
from mllm_selector_jax.selection.rivals.greedy import (
  Picked,
  draw_order,
  fit_in,
  order_by_gain,
)
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy


def k_center(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Takes the row farthest from all kept rows, repeatedly.

  Sources: Gonzalez 1985 (farthest-first traversal, whose radius is at most twice the
  optimum) and Sener and Savarese 2018 (arXiv:1708.00489; core-sets for training). The
  traversal of the whole pool is exact, whatever its size; see `farthest.traverse`. What
  differs here: embeddings are those of the seed model, scaled to length 1, and the
  first row is drawn. The gain of a row is its distance to the nearest row kept before
  it.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  candidates, room = open_room(candidates)
  vectors = scores.unit_embeddings("select.strategy k_center")
  rows, forced = draw_order(candidates)
  count = most_rows(budget, scores)
  picked = farthest_first(vectors, rows, forced, count, room, scores.overseer)
  order, gain = order_by_gain(candidates, rows, picked)
  return first(scores, groups, budget, candidates, order, gain=gain)


def farthest_first(
  vectors: UnitRows,
  rows: Int[np.ndarray, " n"],
  forced: int,
  count: int,
  room: Room | None = None,
  overseer: Overseer = NOBODY,
) -> Picked:
  """Picks rows farthest first, after `forced` ones; the first has infinite distance."""
  from mllm_selector_jax.selection.pairwise import farthest  # imports jax

  fits = fit_in(room, rows, forced)
  closed = None if room is None else lambda: room.full()[rows]
  limits = () if room is None else room.limits.decisive()
  keeper = overseer.keep("picks", vectors, rows, forced, count, *limits)
  with overseer.watch("farthest rows") as progress:
    found = farthest.traverse(
      *(vectors, rows, forced, count),
      fits=fits,
      closed=closed,
      progress=progress,
      keeper=keeper,
    )
  return Picked(found.picks, _to_distance(found.before), _to_distance(found.after))


def _to_distance(cosine):
  return np.sqrt(np.maximum(2 - 2 * cosine.astype(np.float64), 0))


STRATEGY = Strategy(
  k_center,
  takes="the farthest from all kept rows",
  source="Gonzalez 1985; Sener and Savarese 2018, arXiv:1708.00489",
  embeddings=True,
)
