"""One plug-in of each kind, as docs/extending.md has them."""
