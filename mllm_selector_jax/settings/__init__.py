"""The settings of a config, checked as a whole before a command does anything."""

from mllm_selector_jax.settings.relations import check_settings

__all__ = ["check_settings"]
