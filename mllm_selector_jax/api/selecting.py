"""Selects rows from plain arrays, for people who score with a tool of their own."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt64

from mllm_selector_jax import plugins
from mllm_selector_jax.selection import groups as grouping
from mllm_selector_jax.selection import strategies
from mllm_selector_jax.selection.eligibility import Scores
from mllm_selector_jax.selection.necessity import rank_normalise
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.types import InputError

# The reason of a row whose loss, or another signal, is not a finite number.
NOT_FINITE = "not a number"


@dataclasses.dataclass(frozen=True)
class Selected:
  """The rows that `select` keeps, and why it kept or left out every row.

  Attributes:
    rows: numbers of the kept rows, from 0, the most wanted first.
    ids: what the kept rows are called, in the order of `rows`: their numbers where
      no ids were given.
    kept: whether each row is kept.
    reasons: for each row one of the texts of `selection.reasons.MEANINGS`, or
      "not a number".
    groups: the name of each row's group; "" for a row that is not a number.
    necessity: each row's rank-normalised loss in [0, 1]; NaN where it has none.
    warnings: what the user should know.
    details: the selection of the rows with finite scores, with a table of the
      groups and the certificate of the optimum.
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
    """A pyarrow.Table with a line for each of the N rows, in their order.

    Its columns are `row`, `kept`, `rank` (the place among the kept rows, from 0,
    and null for the others), `reason`, `group` and `necessity`.
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
    """The table of `to_table` as a pandas.DataFrame; pandas must be installed."""
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
  force_in: Any = None,
  leave_out: Any = None,
  **options: Any,
) -> Selected:
  """Selects the rows to keep from their losses.

  Arrays may be those of numpy or jax, torch tensors on the CPU, pyarrow columns,
  columns of a `datasets.Dataset`, or lists. With ids, the result does not depend on
  the order of the rows.

  Args:
    losses: [N] each row's necessity to the model: its mean loss a token in nats, or
      another number that is larger where the row teaches more. Rows whose loss is not
      finite are left out and named.
    embeddings: [N, D] a vector a row, which groups and some strategies compare.
    groups: [N] each row's group, as numbers or names. Where they are not given they
      are k-means clusters of the embeddings, and without embeddings strata of the
      losses.
    budget: how many rows to keep: 500, "500", "5%", or training tokens such as
      "2Mtok" (which needs `tokens`).
    strategy: "kl", one of the other names in docs/method.md, or a function of your
      own as "module:function" (docs/extending.md).
    seed: of every draw.
    ids: [N] what the rows are called, each once.
    accuracies: [N] the share of each row's answer tokens that the model gets right.
      With them, wrong answers are told from hard ones by the bound "mixture".
    signals: other columns that the strategy or the bound reads, by name: "entropy",
      "el2n", "grand", "ifd", "visual", "perplexity".
    tokens: [N] training tokens of each row.
    force_in: [N] whether a row is kept whatever its loss is.
    leave_out: [N] whether a row is never kept.
    **options: fields of `selection.options.SelectOptions`, such as `kl_weight`,
      `target`, `bound`, `floor` and `cap`. The bound is "mixture" with accuracies and
      "quantile" without them, unless it is given.

  Returns:
    The kept rows, with a reason for every row.

  Raises:
    InputError: arrays of different lengths, no finite loss, ids that repeat, or a
      budget, strategy or option that does not exist or lacks what it reads.

  Example:
    >>> import mllm_selector_jax as ms
    >>> chosen = ms.select([0.1, 2.0, 1.5, 0.2], groups=["a", "a", "b", "b"], budget=2)
    >>> small = dataset.select(chosen.rows)  # of a `datasets.Dataset`
  """
  losses = _read_column(losses, "losses", None)
  count = len(losses)
  columns = {"loss": losses}
  if accuracies is not None:
    columns["accuracy"] = _read_column(accuracies, "accuracies", count)
  for name, values in (signals or {}).items():
    columns[name] = _read_column(values, f"signals[{name!r}]", count)
  vectors = None if embeddings is None else _read_matrix(embeddings, count)
  labels = None if groups is None else _read_labels(groups, count)
  names = list(range(count)) if ids is None else _read_ids(ids, count)
  options.setdefault("bound", "mixture" if "accuracy" in columns else "quantile")
  trusted = {"strategy": strategy, "bound": options["bound"]}  # the caller names them
  with plugins.trusting(trusted):
    settings = _make_options(strategy, options)
    reads = strategies.find_strategy(strategy).signals

  finite = np.isfinite(losses)
  if not finite.any():
    raise InputError(f"losses: none of {count:,} is a finite number.")
  for name in reads:
    if name in columns:
      finite &= np.isfinite(columns[name])
  rows = np.flatnonzero(finite)

  def pick(values: Any) -> Any:
    return None if values is None else values[rows]

  scores = Scores(
    necessity=losses[rows],
    key=_hash_names(ids, names)[rows],
    signals={name: values[rows] for name, values in columns.items()},
    embeddings=pick(vectors),
    tokens=pick(None if tokens is None else _read_whole(tokens, "tokens", count)),
    forced_in=pick(
      None if force_in is None else _read_flags(force_in, "force_in", count)
    ),
    left_out=pick(
      None if leave_out is None else _read_flags(leave_out, "leave_out", count)
    ),
  )
  grouped = _make_groups(pick(labels), scores, settings, seed)
  with plugins.trusting(trusted):
    chosen = strategies.select(scores, grouped, budget, seed, settings)
  return _describe(chosen, grouped, rows, count, names)


def _make_options(strategy: str, options: dict[str, Any]) -> SelectOptions:
  known = {field.name for field in dataclasses.fields(SelectOptions)}
  if unknown := sorted(set(options) - known):
    raise InputError(
      f"select has no option {unknown[0]!r}; there are {', '.join(sorted(known))}."
    )
  return SelectOptions(strategy=strategy, **options)


def _make_groups(
  labels: np.ndarray | None, scores: Scores, settings: SelectOptions, seed: int
) -> grouping.Groups:
  if labels is not None:
    return grouping.by_column(labels, "group")
  ranks = rank_normalise(scores.necessity, scores.flag("seen"))
  if scores.embeddings is None:
    return grouping.by_necessity(ranks, settings.strata)
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


def _to_numpy(values: Any) -> np.ndarray:
  """An array of any library as numpy's; nested lists and Arrow columns too."""
  if hasattr(values, "to_pylist"):  # of pyarrow
    values = values.to_pylist()
  elif hasattr(values, "detach"):  # of torch
    values = values.detach().cpu()
    values = values.float() if values.is_floating_point() else values
  elif not hasattr(values, "__array__"):  # a column of `datasets`, or a list
    values = list(values)
  return np.asarray(values)


def _check_length(values: np.ndarray, name: str, count: int | None) -> None:
  if count is not None and len(values) != count:
    raise InputError(
      f"{name} has {len(values):,} entries, but there are {count:,} losses."
    )


def _read_column(values: Any, name: str, count: int | None) -> Float[np.ndarray, " N"]:
  try:
    found = _to_numpy(values).astype(np.float64)
  except (TypeError, ValueError) as error:
    raise InputError(f"{name} must be numbers: {error}.") from error
  if found.ndim != 1 or not len(found):
    raise InputError(
      f"{name} has the shape {found.shape}; it must be [N], one number a row."
    )
  _check_length(found, name, count)
  return found


def _read_matrix(values: Any, count: int) -> Float[np.ndarray, "N D"]:
  try:
    found = _to_numpy(values).astype(np.float32)
  except (TypeError, ValueError) as error:
    raise InputError(f"embeddings must be numbers: {error}.") from error
  if found.ndim != 2 or not found.shape[1]:
    raise InputError(
      f"embeddings has the shape {found.shape}; it must be [N, D], one vector a row."
    )
  _check_length(found, "embeddings", count)
  return found


def _read_labels(values: Any, count: int) -> np.ndarray:
  found = _to_numpy(values)
  if found.ndim != 1:
    raise InputError(f"groups has the shape {found.shape}; it must be [N].")
  _check_length(found, "groups", count)
  return found if found.dtype.kind in "iub" else found.astype(object)


def _read_whole(values: Any, name: str, count: int) -> Int[np.ndarray, " N"]:
  found = _read_column(values, name, count)
  if not (np.isfinite(found).all() and (found == np.floor(found)).all()):
    raise InputError(f"{name} must be whole numbers.")
  return found.astype(np.int64)


def _read_flags(values: Any, name: str, count: int) -> Bool[np.ndarray, " N"]:
  found = _to_numpy(values)
  if found.dtype != bool or found.ndim != 1:
    raise InputError(f"{name} must be [N] booleans, one a row.")
  _check_length(found, name, count)
  return found


def _read_ids(values: Any, count: int) -> list[Any]:
  found = _to_numpy(values).tolist()
  if len(found) != count:
    raise InputError(f"ids has {len(found):,} entries, but there are {count:,} losses.")
  if len(set(found)) != count:
    raise InputError(
      f"ids: {count - len(set(found)):,} of {count:,} repeat an earlier one; give each"
      " row an id of its own, or none at all."
    )
  return found


def _hash_names(ids: Any, names: list[Any]) -> UInt64[np.ndarray, " N"]:
  """The 64 bits by which draws tell rows apart: of the id, or of the row's number."""
  kind = "row" if ids is None else "id"
  digests = (hashlib.sha256(f"{kind} {name}".encode()).digest()[:8] for name in names)
  return np.array([int.from_bytes(digest, "big") for digest in digests], np.uint64)
