"""The checked pool: its rows, what they are known by, and what became of each."""
