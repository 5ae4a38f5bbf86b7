"""A conversation as the tokens that a model reads, and the template that frames it."""
