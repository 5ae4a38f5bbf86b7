"""Which rows to keep: array mathematics over scores and groups, without a model."""
