"""Selects rows from plain arrays, for users who score with a tool of their own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from mllm_selector_jax import plugins
from mllm_selector_jax.api.plain_arrays import (
  hash_names,
  read_column,
  read_flags,
  read_ids,
  read_integers,
  read_labels,
  read_matrix,
)
from mllm_selector_jax.selection import budget as budgets
from mllm_selector_jax.selection import groups as grouping
from mllm_selector_jax.selection import strategies
from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.limits import make_column
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.types import InputError

# The reason of a row whose loss, or another signal, is not a finite number.
NOT_FINITE = "not a number"


@dataclasses.dataclass(frozen=True)
class Selected:
  """The rows that `select` keeps, and for every row why it was kept or not.

  Attributes:
    rows: the numbers of the kept rows, from 0, by rank.
    ids: the ids of the kept rows, in the order of `rows`; their numbers, if no ids were
      given.
    kept: whether each row is kept.
    reasons: for each row one of the texts in `selection.reasons.MEANINGS`, which is
      "not a number" for a row without a finite loss.
    groups: the name of each row's group; "" for a row without a finite loss.
    necessity: the ranks of the losses, scaled to [0, 1]; NaN for a row without a finite
      loss. The column `necessity` of `selection.parquet` has the same values.
    warnings: messages for the user.
    details: the selection of the rows with finite losses, with a table of the groups
      and the certificate of the optimum.
  """

  rows: Int[np.ndarray, " K"]
  ids: list[Any]
  kept: Bool[np.ndarray, " N"]
  reasons: list[str]
  groups: list[str]
  necessity: Float[np.ndarray, " N"]
  warnings: tuple[str, ...]
  details: Selection

  def __len__(self) -> int:
    """The number of kept rows."""
    return len(self.rows)

  def to_table(self) -> Any:
    """Returns a pyarrow.Table with one line for each of the N rows, in their order.

    Its columns are `row`, `kept`, `rank` (the place among the kept rows, from 0; null
    for all others), `reason`, `group` and `necessity`.
    """
    import pyarrow as pa

    rank = np.zeros(len(self.kept), np.int64)
    rank[self.rows] = np.arange(len(self.rows))
    return pa.table(
      {
        "row": np.arange(len(self.kept)),
        "kept": self.kept,
        "rank": pa.array(rank, mask=~self.kept),
        "reason": self.reasons,
        "group": self.groups,
        "necessity": self.necessity,
      }
    )

  def to_pandas(self) -> Any:
    """Returns the table of `to_table` as a pandas.DataFrame; this needs pandas."""
    return self.to_table().to_pandas()


def select(
  losses: Any,
  embeddings: Any = None,
  groups: Any = None,
  budget: int | str = "5%",
  strategy: str = "kl",
  seed: int = 0,
  *,
  ids: Any = None,
  accuracies: Any = None,
  signals: Mapping[str, Any] | None = None,
  tokens: Any = None,
  flops: Any = None,
  force_in: Any = None,
  leave_out: Any = None,
  reference: Any = None,
  classes: Any = None,
  columns: Mapping[str, Any] | None = None,
  **options: Any,
) -> Selected:
  """Selects the rows to keep by their losses.

  Arrays may be numpy or jax arrays, torch tensors on the CPU, pyarrow columns, columns
  of a `datasets.Dataset`, or lists. With ids, the result does not depend on the order
  of the rows.

  Args:
    losses: [N] the necessity of each row: its mean loss per token in nats, or another
      number that is larger if the row has more to teach. Rows whose loss is not finite
      are left out, with the reason "not a number".
    embeddings: [N, D] one vector for each row, for k-means groups and for strategies
      that compare rows.
    groups: [N] the group of each row, as a number or a name. By default groups are
      k-means clusters of the embeddings, or without embeddings strata of the losses.
    budget: how much to keep: 500, "500", "5%", training tokens such as "2Mtok" (which
      needs `tokens`), "5%flops" or "3e18flops" (which need `flops`), or "50%ref", a
      share of the number of rows of `reference`.
    strategy: "kl", another name in docs/method.md, or a function of your own as
      "module:function" (docs/extending.md).
    seed: seed of every draw.
    ids: [N] the ids of the rows, without repeats.
    accuracies: [N] the share of each row's answer tokens that the model predicts right.
      With them, the bound "mixture" separates wrong answers from hard ones.
    signals: [N] other columns that the strategy or the bound reads, by name: "entropy",
      "el2n", "grand", "ifd", "visual", "perplexity".
    tokens: [N] the number of training tokens of each row.
    flops: [N] the FLOPs of training on each row; counted in millions, rounded up.
    force_in: [N] whether a row is kept whatever its loss.
    leave_out: [N] whether a row must not be kept.
    reference: [N] whether a row is in the mixture that is trained on today, for budgets
      relative to it and for the strategy "reference". Rows that are left out or whose
      loss is not finite do not count.
    classes: [N] the class of each row, such as its source, as a number or a name,
      inside which losses are then ranked.
    columns: [N] columns by name whose values `most` and `least` limit, such as
      `columns={"image": paths}` with `most={"image": 2}`; None is no value.
    **options: fields of `selection.options.SelectOptions`, such as `kl_weight`,
      `target`, `bound`, `floor`, `cap`, `most` and `least`. By default the bound is
      "mixture" with accuracies and "quantile" without them.

  Returns:
    The kept rows, with a reason for every row.

  Raises:
    InputError: arrays have different lengths, no loss is finite, ids repeat, or a
      budget, strategy or option is unknown or lacks an array that it reads.

  Example:
    >>> import mllm_selector_jax as ms
    >>> chosen = ms.select([0.1, 2.0, 1.5, 0.2], groups=["a", "a", "b", "b"], budget=2)
    >>> small = dataset.select(chosen.rows)  # of a `datasets.Dataset`
  """
  losses = read_column(losses, "losses", None)
  count = len(losses)
  table = {"loss": losses}
  if accuracies is not None:
    table["accuracy"] = read_column(accuracies, "accuracies", count)
  for name, values in (signals or {}).items():
    table[name] = read_column(values, f"signals[{name!r}]", count)
  lists = {"force_in": force_in, "leave_out": leave_out, "reference": reference}
  flags = {
    name: None if values is None else read_flags(values, name, count)
    for name, values in lists.items()
  }
  if (members := flags["reference"]) is not None:
    members = members & np.isfinite(losses)
    if flags["leave_out"] is not None:
      members &= ~flags["leave_out"]
  amount = budgets.relate(budget, None if members is None else int(members.sum()))
  vectors = None if embeddings is None else read_matrix(embeddings, count)
  labels = None if groups is None else read_labels(groups, "groups", count)
  kinds = None if classes is None else read_labels(classes, "classes", count)
  names = list(range(count)) if ids is None else read_ids(ids, count)
  options.setdefault("bound", "mixture" if "accuracy" in table else "quantile")
  # Plug-ins that the caller names may be imported.
  trusted = {"strategy": strategy, "bound": options["bound"]}
  with plugins.trusting(trusted):
    settings = _make_options(strategy, options)
    reads = strategies.find_strategy(strategy).signals

  finite = np.isfinite(losses)
  if not finite.any():
    raise InputError(f"losses: none of {count:,} is a finite number.")
  for name in reads:
    if name in table:
      finite &= np.isfinite(table[name])
  rows = np.flatnonzero(finite)

  def pick(values: Any) -> Any:
    return None if values is None else values[rows]

  scores = Scores(
    necessity=losses[rows],
    key=hash_names(ids, names)[rows],
    signals={name: values[rows] for name, values in table.items()},
    embeddings=pick(vectors),
    classes=_number(pick(kinds)),
    reference=pick(members),
    mflops=pick(None if flops is None else read_integers(flops, "flops", count, 1e6)),
    tokens=pick(None if tokens is None else read_integers(tokens, "tokens", count)),
    forced_in=pick(flags["force_in"]),
    left_out=pick(flags["leave_out"]),
    columns={
      name: make_column(pick(read_labels(values, f"columns[{name!r}]", count)))
      for name, values in (columns or {}).items()
    },
  )
  grouped = _make_groups(pick(labels), scores, settings, seed)
  with plugins.trusting(trusted):
    chosen = strategies.select(scores, grouped, amount, seed, settings)
  return _describe(chosen, grouped, rows, count, names)


def _make_options(strategy: str, options: dict[str, Any]) -> SelectOptions:
  known = {field.name for field in dataclasses.fields(SelectOptions)}
  if unknown := sorted(set(options) - known):
    raise InputError(
      f"select has no option {unknown[0]!r}; there are {', '.join(sorted(known))}."
    )
  return SelectOptions(strategy=strategy, **options)


def _number(labels: np.ndarray | None) -> Int[np.ndarray, " n"] | None:
  return None if labels is None else grouping.by_column(labels, "", "classes").index


def _make_groups(
  labels: np.ndarray | None, scores: Scores, settings: SelectOptions, seed: int
) -> grouping.Groups:
  if labels is not None:
    return grouping.by_column(labels, "group", "groups")
  if scores.embeddings is None:
    return grouping.by_necessity(scores.rank(), settings.strata)
  vectors = scores.unit_embeddings("groups")
  return grouping.by_embedding(vectors, settings.clusters, scores.key, seed)


def _describe(
  chosen: Selection,
  groups: grouping.Groups,
  rows: Int[np.ndarray, " n"],
  count: int,
  names: list[Any],
) -> Selected:
  kept = np.zeros(count, bool)
  kept[rows] = chosen.kept
  order = np.flatnonzero(chosen.kept)
  order = rows[order[np.argsort(chosen.rank[order])]]
  reasons, group = [NOT_FINITE] * count, [""] * count
  necessity = np.full(count, np.nan)
  necessity[rows] = chosen.normalised_necessity
  for place, row in enumerate(rows.tolist()):
    reasons[row] = str(chosen.reason[place])
    group[row] = groups.names[chosen.group[place]]
  return Selected(
    rows=order,
    ids=[names[row] for row in order.tolist()],
    kept=kept,
    reasons=reasons,
    groups=group,
    necessity=necessity,
    warnings=chosen.warnings,
    details=chosen,
  )
