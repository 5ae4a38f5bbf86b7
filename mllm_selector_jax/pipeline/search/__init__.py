"""Searches settings of the selection: compares them by short tunes."""
