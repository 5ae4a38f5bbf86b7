"""Warns about suspect rows that may not be wrong."""

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.data.tokens.dialogue import Round, read_rounds
from mllm_selector_jax.pipeline.candidates import Eligible
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.shared_answers import Shared
from mllm_selector_jax.selection.strategies import find_strategy

MOST = 5  # shared answers with a warning of their own
_LETTERS = 60  # characters of an answer that a warning shows


def list_warnings(eligible: Eligible, chosen: Selection) -> list[str]:
  """Warn where many suspects share one answer, or where this cannot be known."""
  bounded = find_strategy(eligible.options.strategy).bounded
  if not eligible.pool.has_answers and bounded:
    return [
      f"{eligible.pool.path} was written by an earlier version and does not say which"
      " rows have the same answer. A model that knows only the most common answer of a"
      " group is then taken for one that knows the group. Move the file away and check"
      " the pool again."
    ]
  texts = [_describe(eligible, chosen, shared) for shared in chosen.shared[:MOST]]
  if (omitted := len(chosen.shared) - MOST) > 0:
    texts.append(f"suspects share one answer in {omitted:,} more groups.")
  return texts


def _describe(eligible: Eligible, chosen: Selection, shared: Shared) -> str:
  answer = read_answer(eligible.pool, int(eligible.rows[shared.row]))
  group = "" if shared.group is None else f" of {chosen.table.name[shared.group]}"
  return (
    f"{shared.suspects:,} of the {shared.of:,} suspect rows{group} have the answer"
    f" {answer!r}, as have {shared.share:.0%} of {'its' if group else 'all'} rows. The"
    " rows may be right, and the model may only not know this answer: look at them"
    " before you leave them out (select.bound=none keeps them)."
  )


def read_answer(pool: PoolTable, row: int) -> str:
  """Return the answers of a row, shortened for a message."""
  rounds = read_rounds_of(pool, row)
  text = " | ".join(turn.answer.strip() for turn in rounds)
  return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}..."


def read_rounds_of(pool: PoolTable, row: int) -> list[Round]:
  """Return the questions and answers of a row."""
  return read_rounds(record_schemas.read_content(pool.record(row)).conversations)
