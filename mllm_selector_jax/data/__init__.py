"""From a pool's files to tokens, pixels and packed batches; nothing here needs jax."""
