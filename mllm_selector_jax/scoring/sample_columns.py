"""Sums the token signals of a part's steps to one line for each sample."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mllm_selector_jax.data.packing.assembly import Owners
from mllm_selector_jax.scoring import signals

Output = tuple[dict[str, np.ndarray], Owners]


def make_columns(rows: Int[np.ndarray, " n"], outputs: list[Output]) -> dict[str, Any]:
  """Compute the columns of a part, one value for each sample.

  Sums are made in float64, so that they do not depend on how samples were packed.

  Args:
    rows: The part's pool rows, ascending.
    outputs: For each step its token signals, optionally "embedding", and the owners
      of its positions by pool row.

  Returns:
    Columns by name: "row", "supervised" (number of supervised tokens), "turn_losses"
    (a list for each row), the sum of each token signal, and "embedding" [n, E] if the
    steps have embeddings.
  """
  names = [name for name in outputs[0][0] if name != "embedding"]
  sums = {name: np.zeros(len(rows)) for name in names}
  supervised = np.zeros(len(rows), np.int64)
  turn_losses: list[list[float]] = [[] for _ in rows]
  for out, owners in outputs:
    # Map pool rows to positions in the part; `rows` ascends.
    item = np.where(owners.item >= 0, np.searchsorted(rows, owners.item), -1)
    tokens = {name: out[name] for name in names}
    for name, value in signals.sum_by_item(tokens, item, len(rows)).items():
      sums[name] += value
    valid = item >= 0
    supervised += np.bincount(item[valid], minlength=len(rows))
    _add_turns(turn_losses, item[valid], owners.turn[valid], out["loss"][valid])
  columns = {"row": rows, "supervised": supervised, "turn_losses": turn_losses, **sums}
  if "embedding" in outputs[0][0]:
    columns["embedding"] = _mean_embeddings(rows, outputs)
  return columns


def _mean_embeddings(
  rows: Int[np.ndarray, " n"], outputs: list[Output]
) -> Float[np.ndarray, "n E"]:
  turns = np.zeros(len(rows), np.int64)
  embeddings = np.zeros((len(rows), outputs[0][0]["embedding"].shape[-1]))
  for out, owners in outputs:
    answer = owners.answer_item >= 0
    answer_of = np.searchsorted(rows, owners.answer_item[answer])
    turns += np.bincount(answer_of, minlength=len(rows))
    np.add.at(embeddings, answer_of, out["embedding"][answer].astype(np.float64))
  return (embeddings / turns[:, None]).astype(np.float32)


def _add_turns(turn_losses, item, turn, loss) -> None:
  """Append the mean loss of each turn to the lists of `turn_losses`.

  The tokens of a turn are contiguous, since a sample is inside one packed row.
  """
  starts = np.flatnonzero(np.diff(item, prepend=-1) | np.diff(turn, prepend=-1))
  if not len(starts):
    return
  sums = np.add.reduceat(loss.astype(np.float64), starts)
  counts = np.diff(starts, append=len(item))
  for i, mean in zip(item[starts], sums / counts, strict=True):
    turn_losses[i].append(float(mean))
