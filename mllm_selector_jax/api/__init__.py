"""The public functions: `select` on plain arrays, and the commands as functions."""

from mllm_selector_jax.api.commands import check, load_config, run, score
from mllm_selector_jax.api.selecting import Selected, select

__all__ = ["Selected", "check", "load_config", "run", "score", "select"]
