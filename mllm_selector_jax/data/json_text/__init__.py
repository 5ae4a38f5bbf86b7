"""Reads the records of JSON files, sequentially and at random."""
