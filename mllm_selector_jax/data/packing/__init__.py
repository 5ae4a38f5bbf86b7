"""Rows of samples: who shares a row of tokens, the batch's shape, and the batch."""
