"""What the config names, opened: base model, pool, questions and lists of rows."""
