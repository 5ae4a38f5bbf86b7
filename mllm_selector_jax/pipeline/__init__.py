"""What the commands are made of: each function makes an artifact that is not current."""
