"""Facility location: every row should have a similar kept row."""

from mllm_selector_jax.selection.covering import cover_greedily
from mllm_selector_jax.selection.eligibility import Scores, sort_out
from mllm_selector_jax.selection.groups import Groups
from mllm_selector_jax.selection.limited import open_room
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.ordered import Budget, first, most_rows
from mllm_selector_jax.selection.rivals.greedy import (
  draw_order,
  fit_in,
  order_by_gain,
)
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.strategy import Strategy


def facility_location(
  scores: Scores, groups: Groups, budget: Budget, rng: int, options: SelectOptions
) -> Selection:
  """Maximises the sum of each row's similarity to the most similar kept row, greedily.

  Sources: Nemhauser, Wolsey and Fisher 1978 (the greedy algorithm, which reaches at
  least 1 - 1/e of the optimum), Minoux 1978 (its lazy form), and Wei, Iyer and Bilmes
  2015 (for data selection). Similarity is the cosine of the seed model's embeddings, or
  0 if it is negative.

  In a pool of more than `ALL_PAIRS_ROWS` rows, only the `NEAREST` most similar rows
  cover a row (Lindgren, Wu and Dimakis 2016: sparsification by nearest neighbours).
  Some (1 + ln t) n / t of n rows meet the t nearest of every row. Adding them to the
  best k rows makes each row as well covered by its nearest ones as by the best rows
  alone. The greedy algorithm therefore reaches at least
  (1 - 1/e) / (1 + (1 + ln t) n / (t k)) of the optimum of all pairs. This holds for the
  true neighbours; see `neighbours.find_neighbours` for how they are found.
  """
  candidates = sort_out(scores, groups, rng, options, bounded=False)
  candidates, room = open_room(candidates)
  vectors = scores.unit_embeddings("select.strategy facility_location")
  rows, forced = draw_order(candidates)
  fits = fit_in(room, rows, forced)
  count = most_rows(budget, scores)
  picked = cover_greedily(
    *(vectors, rows, forced, count),
    fits=fits,
    overseer=scores.overseer,
    limits=() if room is None else room.limits.decisive(),
  )
  order, gain = order_by_gain(candidates, rows, picked)
  return first(scores, groups, budget, candidates, order, gain=gain)


STRATEGY = Strategy(
  facility_location,
  takes="rows that together are most similar, by cosine, to all others",
  source="Nemhauser et al. 1978; Minoux 1978; Wei et al. 2015; Lindgren et al. 2016",
  embeddings=True,
)
