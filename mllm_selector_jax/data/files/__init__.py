"""Finds the files of the pool, and opens them, decompressed where necessary."""
