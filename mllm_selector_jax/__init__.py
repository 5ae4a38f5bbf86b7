"""Choose the few samples of a visual-instruction pool that teach the most."""

__version__ = "0.1.0"
