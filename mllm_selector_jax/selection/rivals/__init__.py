"""Published strategies with which `kl` is compared, each in a file of its own.

Each docstring names the source and how this implementation differs from it. All
strategies take the first rows of an order, so that a larger selection contains a
smaller one; forced rows come first. Embeddings are scaled to length 1, and compared by
the functions of `pairwise`.
"""
