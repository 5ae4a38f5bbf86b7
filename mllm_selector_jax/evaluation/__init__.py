"""Questions with known answers: asking the model, marking, and intervals."""
