"""Records of a file of JSON, read as a stream and at random."""
