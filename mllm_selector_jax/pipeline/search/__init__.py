"""The closed loop: settings of a selection, compared by short tunes."""
