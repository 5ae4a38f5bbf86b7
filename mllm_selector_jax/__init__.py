"""Choose the few samples of a visual-instruction pool that teach the most.

The public functions are imported when they are first asked for, so that the command
line starts without them:

- `select` selects rows from plain arrays of losses;
- `check`, `score` and `run` are commands as functions, and `load_config` a config;
- `InputError` is what they raise where the input is wrong.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from mllm_selector_jax.api import Selected, check, load_config, run, score, select
  from mllm_selector_jax.types import InputError

__version__ = "0.1.0"
__all__ = ["InputError", "Selected", "check", "load_config", "run", "score", "select"]


def __getattr__(name: str) -> Any:
  """Imports a public function where it is asked for."""
  import importlib

  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  room = "types" if name == "InputError" else "api"
  return getattr(importlib.import_module(f"{__name__}.{room}"), name)
