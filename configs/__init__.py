"""Configs of experiments: `get_config()` of each file returns a locked ConfigDict."""
