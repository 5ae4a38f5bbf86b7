"""Published rivals over the same rows, one idea a file.

Each docstring names its source and what differs. All are the first rows of an
order, so budgets nest; forced rows come first. What compares embeddings works
on unit vectors, and in `pairwise` where all pairs would be too many.
"""
