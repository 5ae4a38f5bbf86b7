"""Vision tower, projector and decoder, and their Hugging Face form."""
