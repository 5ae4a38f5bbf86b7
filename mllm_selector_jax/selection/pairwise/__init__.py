"""Compares the embeddings of all pairs of rows, or of the pairs that matter.

`unit_rows` reads rows of length 1 without holding them, and `blocks` sorts rows by
group. `row_tiles` cuts an order of rows into tiles that are distributed over devices,
and `kernels` compares two tiles. On them rest `neighbours` (the most similar rows),
`leaders` (rows without those like an earlier one), `farthest` (farthest-first
traversal), `sums` (Gaussian kernels) and `all_pairs`.

Cosines are float32, computed at full precision and rounded to multiples of 2^-20, and
sums of them are sums of integers. Each tile is computed by one device. Results are
therefore the same on any number of devices. Of equal rows, the one that stands first in
the given order is taken.
"""
