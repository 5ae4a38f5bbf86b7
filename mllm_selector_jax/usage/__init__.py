"""What the command line says about itself: help, resolved configs, completion."""
