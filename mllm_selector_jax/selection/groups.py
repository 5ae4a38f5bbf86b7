"""Groups of rows: clusters, columns, strata of necessity, and their products."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float, Int, UInt64

from mllm_selector_jax.selection.pairwise.unit_rows import Matrix
from mllm_selector_jax.types import InputError


class _KMeansOptions(TypedDict):
  normalise: bool
  tolerance: float
  most_iterations: int


# What a clustering depends on besides the rows, the number of clusters and the seed.
KMEANS: _KMeansOptions = {"normalise": True, "tolerance": 1e-4, "most_iterations": 50}


class Groups(NamedTuple):
  """The group of every row.

  Attributes:
    index: the number of each row's group, from 0.
    names: the names of the groups; there are as many as there are groups.
  """

  # The name hides `tuple.index`, which nothing calls.
  index: Int[np.ndarray, " N"]  # type: ignore[assignment]
  names: tuple[str, ...]


def by_column(
  values: np.ndarray, name: str = "", option: str = "select.groups"
) -> Groups:
  """Groups rows by the value of a column; the groups are sorted, and None is a value.

  Args:
    values: [N] the column.
    name: put before each value in the names of the groups.
    option: the option that names the column, for the message.

  Raises:
    InputError: the column has too many different values.
  """
  if values.dtype == object:
    text = ["(none)" if value is None else str(value) for value in values]
    values = np.array(text, dtype=object)
  names, index = np.unique(values, return_inverse=True)
  if len(names) > max(50, len(values) // 4):
    raise InputError(
      f"{option} names the column {name or 'source'!r}, which has {len(names):,}"
      f" different values in {len(values):,} rows, too many for groups; take a column"
      " whose values repeat more often."
    )
  prefix = f"{name} " if name else ""
  return Groups(index.astype(np.int32), tuple(prefix + str(value) for value in names))


def by_necessity(normalised_necessity: Float[np.ndarray, " N"], strata: int) -> Groups:
  """Groups rows into strata of equal width in [0, 1], the lowest first."""
  index = np.minimum((normalised_necessity * strata).astype(np.int32), strata - 1)
  names = (
    f"necessity {stratum / strata:.2f}-{(stratum + 1) / strata:.2f}"
    for stratum in range(strata)
  )
  return Groups(index, tuple(names))


def by_embedding(
  embeddings: Float[np.ndarray, "N D"] | Matrix,
  clusters: int = 0,
  key: UInt64[np.ndarray, " N"] | None = None,
  rng: int = 0,
  **watching: Any,
) -> Groups:
  """Groups rows into k-means clusters, the largest first.

  Args:
    embeddings: one vector for each row.
    clusters: the number of clusters; 0 derives it from the number of rows.
    key: content hashes, so that the clusters do not depend on the order of the rows.
    rng: seed of the first centres.
    watching: `watch` and `keeper` of `kmeans.kmeans`.
  """
  from mllm_selector_jax.selection import kmeans  # the one group that needs jax

  count = clusters or kmeans.default_clusters(embeddings.shape[0])
  labels = kmeans.kmeans(embeddings, count, key, rng, **KMEANS, **watching).labels
  sizes = np.bincount(labels)
  order = np.argsort(-sizes, kind="stable")
  number = np.empty(len(sizes), np.int32)
  number[order] = np.arange(len(sizes))
  return Groups(number[labels], tuple(f"cluster {c}" for c in range(len(sizes))))


def product(*parts: Groups) -> Groups:
  """Makes one group of each combination of groups that occurs."""
  code = np.zeros(len(parts[0].index), np.int64)
  for part in parts:
    code = code * len(part.names) + part.index
  combinations, index = np.unique(code, return_inverse=True)
  names = [""] * len(combinations)
  for place, combination in enumerate(combinations.tolist()):
    words = []
    for part in reversed(parts):
      combination, digit = divmod(combination, len(part.names))
      words.append(part.names[digit])
    names[place] = " x ".join(reversed(words))
  return Groups(index.astype(np.int32), tuple(names))


def split_form(form: str) -> list[str]:
  """Returns the names in a product such as "source*kmeans"."""
  return [part.strip() for part in form.split("*")]


def check_form(form: str, columns: Collection[str]) -> None:
  """Checks the names in `select.groups`.

  Args:
    form: a name, or a product such as "source*kmeans".
    columns: the columns that rows may be grouped by.

  Raises:
    InputError: a name is neither kmeans nor necessity nor one of the columns.
  """
  for name in split_form(form):
    if name not in ("kmeans", "necessity", *columns):
      raise InputError(
        f"select.groups names {name!r}; allowed are kmeans, necessity and the columns"
        f" {', '.join(sorted(columns)) or '(none)'}."
      )


def make_groups(
  form: str,
  columns: Mapping[str, np.ndarray],
  normalised_necessity: Float[np.ndarray, " N"],
  clusters: Callable[[], Groups] | None = None,
  strata: int = 5,
) -> Groups:
  """Groups rows by what `form` names.

  Args:
    form: "kmeans", "necessity", a column, or a product such as "source*kmeans".
    columns: other columns that rows may be grouped by, such as `source`.
    normalised_necessity: ranks in [0, 1].
    clusters: returns the k-means clusters of the rows, as `by_embedding` does; called
      only if `form` names kmeans.
    strata: the number of necessity strata.

  Raises:
    InputError: a column is unknown, or `form` names kmeans without clusters.
  """
  check_form(form, columns)
  parts = []
  for name in split_form(form):
    if name == "kmeans":
      if clusters is None:
        raise InputError(
          "select.groups is kmeans, but the scores hold no embeddings; run the score"
          " stage with them, or group by source or necessity."
        )
      parts.append(clusters())
    elif name == "necessity":
      parts.append(by_necessity(normalised_necessity, strata))
    else:
      parts.append(by_column(columns[name], "" if name == "source" else name))
  return parts[0] if len(parts) == 1 else product(*parts)
