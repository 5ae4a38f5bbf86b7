"""Groups of rows: clusters, columns, strata of necessity, and their products."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, TypedDict

import numpy as np
from jaxtyping import Float, Int, UInt64

from mllm_selector_jax.types import InputError


class _KMeansOptions(TypedDict):
  normalise: bool
  tolerance: float
  most_iterations: int


# What a clustering follows from, beside the rows, their number and the seed.
KMEANS: _KMeansOptions = {"normalise": True, "tolerance": 1e-4, "most_iterations": 50}


class Groups(NamedTuple):
  """A group for each row.

  Attributes:
    index: the group of each row, from 0.
    names: what each group is called; its length is the number of groups.
  """

  # Hides the method of tuples that finds a value, which nobody calls.
  index: Int[np.ndarray, " N"]  # type: ignore[assignment]
  names: tuple[str, ...]


def by_column(values: np.ndarray, name: str = "") -> Groups:
  """A group for each value of a column, in the values' order; None is a value.

  Raises:
    InputError: hardly a value occurs twice.
  """
  if values.dtype == object:
    text = ["(none)" if value is None else str(value) for value in values]
    values = np.array(text, dtype=object)
  names, index = np.unique(values, return_inverse=True)
  if len(names) > max(50, len(values) // 4):
    raise InputError(
      f"select.groups names the column {name or 'source'!r}, which has {len(names):,}"
      f" different values in {len(values):,} rows, too many for groups; take"
      " kmeans, necessity or a column that repeats."
    )
  prefix = f"{name} " if name else ""
  return Groups(index.astype(np.int32), tuple(prefix + str(each) for each in names))


def by_necessity(necessity: Float[np.ndarray, " N"], strata: int) -> Groups:
  """Strata of equal width over rank-normalised necessity, the lowest first."""
  index = np.minimum((necessity * strata).astype(np.int32), strata - 1)
  names = (
    f"necessity {stratum / strata:.2f}-{(stratum + 1) / strata:.2f}"
    for stratum in range(strata)
  )
  return Groups(index, tuple(names))


def by_embedding(
  embeddings: Float[np.ndarray, "N D"],
  clusters: int = 0,
  key: UInt64[np.ndarray, " N"] | None = None,
  rng: int = 0,
) -> Groups:
  """k-means clusters, the largest first; 0 clusters goes by the number of rows."""
  from mllm_selector_jax.selection import kmeans  # the one group that needs jax

  wanted = clusters or kmeans.default_clusters(len(embeddings))
  labels = kmeans.kmeans(embeddings, wanted, key, rng, **KMEANS).labels
  sizes = np.bincount(labels)
  order = np.argsort(-sizes, kind="stable")
  number = np.empty(len(sizes), np.int32)
  number[order] = np.arange(len(sizes))
  return Groups(number[labels], tuple(f"cluster {c}" for c in range(len(sizes))))


def product(*parts: Groups) -> Groups:
  """A group for each combination that occurs."""
  code = np.zeros(len(parts[0].index), np.int64)
  for part in parts:
    code = code * len(part.names) + part.index
  found, index = np.unique(code, return_inverse=True)
  names = [""] * len(found)
  for place, rest in enumerate(found.tolist()):
    words = []
    for part in reversed(parts):
      rest, digit = divmod(rest, len(part.names))
      words.append(part.names[digit])
    names[place] = " x ".join(reversed(words))
  return Groups(index.astype(np.int32), tuple(names))


def split_form(form: str) -> list[str]:
  """The names in a product such as "source*kmeans"."""
  return [part.strip() for part in form.split("*")]


def check_form(form: str, columns: Collection[str]) -> None:
  """Refuses groups by a name that is none.

  Raises:
    InputError: neither kmeans nor necessity nor one of the columns.
  """
  for name in split_form(form):
    if name not in ("kmeans", "necessity", *columns):
      raise InputError(
        f"select.groups names {name!r}; there are kmeans, necessity and the columns"
        f" {', '.join(sorted(columns)) or '(none)'}."
      )


def make_groups(
  form: str,
  columns: Mapping[str, np.ndarray],
  necessity: Float[np.ndarray, " N"],
  clusters: Callable[[], Groups] | None = None,
  strata: int = 5,
) -> Groups:
  """Groups by name.

  Args:
    form: "kmeans", "necessity", a column, or a product such as "source*kmeans".
    columns: other columns that rows may be grouped by, such as `source`.
    necessity: rank-normalised.
    clusters: gives those of the rows, as `by_embedding` does; asked only for kmeans.
    strata: of necessity.

  Raises:
    InputError: an unknown column, or kmeans without clusters.
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
      parts.append(by_necessity(necessity, strata))
    else:
      parts.append(by_column(columns[name], "" if name == "source" else name))
  return parts[0] if len(parts) == 1 else product(*parts)
