"""Why a row was kept or not, and what each reason means, for people."""

from mllm_selector_jax.selection.bounds import PREFIX, list_meanings

DUPLICATE = f"{PREFIX}nearly the same as another row"
# Reasons in the order of their codes. What follows "left out" are those of rows that
# fill the budget only when no other is left; a plug-in's own come after them.
_MEANINGS = {
  "kept": "its turn came within the budget",
  "floor": "its group had to get at least so many rows",
  "forced in": "the configuration names it",
  "kept to fill the budget": "suspect, but no other row was left",
  "below threshold": "it adds less than the last row that was taken",
  "tied with the threshold": "it adds as much as the last row; the draw decided",
  "not drawn": "its turn did not come within the budget",
  "target share 0": "its group was to get no row",
  "above its group's cap": "its group gave all that it may",
  "held out for development": "settings are compared on it",
  "left out": "the configuration names it",
  **list_meanings(),
  DUPLICATE: "that row stands for it",
  "dropped: the instruction does not help (IFD above 1)": "by the strategy's rule",
  "dropped: nearly the same as a row before it": "by the strategy's rule",
}
REASONS = tuple(_MEANINGS)  # a selection holds one of these for each row
CODE = {reason: code for code, reason in enumerate(REASONS)}
# Rows without a finite score do not come into a selection.
MEANINGS = {
  **_MEANINGS,
  "not a number": "a score that the strategy reads is not finite",
}
