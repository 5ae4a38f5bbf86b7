"""Opens what the config names: base model, pool, questions and lists of rows."""
