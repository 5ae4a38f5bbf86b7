"""Prints a config as a command would read it."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mllm_selector_jax.usage.config_keys import read_keys

_OVERRIDE = re.compile(r"--?(?:no)?config\.([\w.]+)")
_FILE = re.compile(r"--?config(?:=(.*))?$")


def format_config(cfg: Any, default: Any, argv: Sequence[str]) -> str:
  """Formats a config in the order of `default.py`, one key a line.

  Args:
    cfg: the config with all changes.
    default: the default config.
    argv: the command line, which says where values come from.

  Returns:
    The lines, with values as Python writes them. Those that differ from the default
    begin with `*` and end with the place that the value comes from.
  """
  flags = {match[1] for text in argv if (match := _OVERRIDE.match(text))}
  defaults = dict(list_values(default))
  file = f"--config={_find_file(argv)}"
  lines = []
  values = dict(list_values(cfg))
  for key in sorted(values, key=[*read_keys(), *values].index):
    value = values[key]
    line = f"{key} = {value!r}"
    if key in defaults and value == defaults[key]:
      lines.append(f"  {line}")
    else:
      lines.append(f"* {line}  # {f'--config.{key}' if key in flags else file}")
  return "\n".join(lines)


def list_values(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Yields the values of a config with their dotted keys."""
  for name, value in section.items():
    if hasattr(value, "items"):
      yield from list_values(value, f"{prefix}{name}.")
    else:
      yield f"{prefix}{name}", value


def _find_file(argv: Sequence[str]) -> str:
  """Returns the name of the config file that a command line gives."""
  for place, text in enumerate(argv):
    if match := _FILE.match(text):
      following = argv[place + 1] if place + 1 < len(argv) else ""
      return Path(match[1] or following).name
  return ""
