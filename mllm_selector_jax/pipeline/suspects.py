"""What a user should know about the suspects of a selection."""

from mllm_selector_jax.data import record_schemas
from mllm_selector_jax.data.pool.pool_table import PoolTable
from mllm_selector_jax.data.tokens.dialogue import read_rounds
from mllm_selector_jax.pipeline.candidates import Eligible
from mllm_selector_jax.selection.selection import Selection
from mllm_selector_jax.selection.shared_answers import Shared
from mllm_selector_jax.selection.strategies import find_strategy

MOST = 5  # shared answers that are told one by one
_LETTERS = 60  # of an answer


def list_warnings(eligible: Eligible, chosen: Selection) -> list[str]:
  """Says where suspects share one answer, or where nobody can tell."""
  bounded = find_strategy(eligible.options.strategy).bounded
  if not eligible.pool.has_answers and bounded:
    return [
      f"{eligible.pool.path} is of an earlier version and does not say which rows have"
      " the same answer, so that a model which knows only the commonest answer of a"
      " group passes for one that knows the group; move it away and check the pool"
      " again."
    ]
  texts = [_describe(eligible, chosen, shared) for shared in chosen.shared[:MOST]]
  if (more := len(chosen.shared) - MOST) > 0:
    texts.append(f"suspects share one answer in {more:,} more groups.")
  return texts


def _describe(eligible: Eligible, chosen: Selection, shared: Shared) -> str:
  answer = _read_answer(eligible.pool, int(eligible.rows[shared.row]))
  place = "" if shared.group is None else f" of {chosen.table.name[shared.group]}"
  return (
    f"{shared.suspects:,} of the {shared.of:,} suspect rows{place} have the answer"
    f" {answer!r}, as {shared.share:.0%} of {'its' if place else 'all'} rows have: the"
    " model may not know this answer, rather than the rows be wrong; look at them"
    " before you leave them out (select.bound=none keeps them)."
  )


def _read_answer(pool: PoolTable, row: int) -> str:
  rounds = read_rounds(record_schemas.read_content(pool.record(row)).conversations)
  text = " | ".join(each.answer.strip() for each in rounds)
  return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}..."
