"""Lines that a case is the first to run, by which mutations can be guided."""

import sys
from types import CodeType
from typing import Any

# Packages whose lines count: ours, and those that read what we hand them in Python.
PACKAGES = (
  "mllm_selector_jax",
  "PIL",
  "jinja2",
  "yaml",
  "transformers",
  "huggingface_hub",
)
_TOOL = 4  # of sys.monitoring's six, one that no debugger or profiler has by custom


class Reached:
  """Counts the lines that were run, each once, until `close`.

  Python tells of a line the first time that it is run, and not again, so that counting
  costs next to nothing. It needs Python 3.12.

  Attributes:
    lines: how many have been run since the beginning or since `restart`.

  Raises:
    RuntimeError: on Python 3.11.
  """

  def __init__(self, packages: tuple[str, ...] = PACKAGES):
    if sys.version_info < (3, 12):
      raise RuntimeError("lines are only counted on Python 3.12 or later")
    self.lines = 0
    self._parts = tuple(f"/{package}/" for package in packages)
    # Named so that the type checker reads the module on Python 3.11, too.
    self._monitoring: Any = getattr(sys, "monitoring")  # noqa: B009
    self._monitoring.use_tool_id(_TOOL, "fuzz")
    self._monitoring.register_callback(_TOOL, self._monitoring.events.LINE, self._see)
    self._monitoring.set_events(_TOOL, self._monitoring.events.LINE)

  def _see(self, code: CodeType, line: int) -> object:
    """Counts a line, of which nothing more is to be told."""
    self.lines += any(part in code.co_filename for part in self._parts)
    return self._monitoring.DISABLE

  def restart(self) -> None:
    """Forgets which lines have been run."""
    self.lines = 0
    self._monitoring.restart_events()

  def close(self) -> None:
    self._monitoring.set_events(_TOOL, 0)
    self._monitoring.free_tool_id(_TOOL)
