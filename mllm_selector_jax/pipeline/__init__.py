"""What the commands are made of: each function makes its artifact unless it is current."""
