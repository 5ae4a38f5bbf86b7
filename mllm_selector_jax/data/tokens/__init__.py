"""Encodes conversations to the tokens that a model reads, by conversation templates."""
