"""Which files are the pool, opened by path, local or in a bucket, packed or plain."""
