"""What the reasons of a selection mean, for people."""

# What a selection's reasons mean.
MEANINGS = {
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
  "not a number": "a score that the strategy reads is not finite",
  "suspect: upper necessity bound": "its loss is among its group's highest",
  "suspect: wrong where the seed model is mostly right": "its answer may be wrong",
  "suspect: less likely with its image": "its image may belong to another row",
  "suspect: unlikely to the seed model": "its answer may be wrong",
  "suspect: unlikely to a model that has not seen it": "its answer may be wrong",
  "suspect: nearly the same as another row": "that row stands for it",
  "dropped: the instruction does not help (IFD above 1)": "by the strategy's rule",
  "dropped: nearly the same as a row before it": "by the strategy's rule",
}
