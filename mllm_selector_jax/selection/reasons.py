"""The reasons why a row was kept or not, and an explanation of each for people."""

from mllm_selector_jax.selection.bounds import PREFIX, list_meanings

IN_REFERENCE = "in the reference"
RESERVED = "reserved for its value"
PASSED_OVER = "passed over: its value is full"
DUPLICATE = f"{PREFIX}nearly the same as another row"
# The order is that of the codes. The reasons after "left out" are those of suspect
# rows, which are kept only if the budget cannot be filled without them. The reasons of
# plug-ins are appended to them.
_MEANINGS = {
  "kept": "its turn came within the budget",
  "floor": "its group had to get at least so many rows",
  "forced in": "the configuration names it",
  RESERVED: "select.least wants so many rows of one of its values",
  IN_REFERENCE: "select.reference names it, and its turn came within the budget",
  "kept to fill the budget": "suspect, but no other row was left",
  "below threshold": "its gain is below that of the last row that was taken",
  "tied with the threshold": "its gain equals that of the last row; a draw decided",
  "not drawn": "its turn did not come within the budget",
  "target share 0": "its group was to get no row",
  "above its group's cap": "its group gave all that it may",
  PASSED_OVER: "others of its image, or of another value that select.most limits, come"
  " before it",
  "held out for development": "settings are compared on it",
  "left out": "the configuration names it",
  **list_meanings(),
  DUPLICATE: "that row stands for it",
  "dropped: the instruction does not help (IFD above 1)": "by the strategy's rule",
  "dropped: nearly the same as a row before it": "by the strategy's rule",
}
REASONS = tuple(_MEANINGS)  # every row of a selection has one of these
CODE = {reason: code for code, reason in enumerate(REASONS)}
# Rows without a finite score are not part of a selection, so they have no code.
MEANINGS = {
  **_MEANINGS,
  "not a number": "a score that the strategy reads is not finite",
}
