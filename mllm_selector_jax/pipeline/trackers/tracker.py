"""What all trackers have in common: what they are opened with, and what they do."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PROJECT = "mllm-selector"  # the project or experiment, unless the user names another


class Job(NamedTuple):
  """A training or evaluation that is tracked.

  Attributes:
    folder: `logs/` of the workdir.
    title: such as "tune main".
    group: the name of the workdir, which its jobs have in common.
    settings: the values of all config keys, as text.
  """

  folder: Path
  title: str
  group: str
  settings: dict[str, str]


class Tracker(NamedTuple):
  """An open tracker.

  Attributes:
    log: takes values by name, and their step.
    close: writes what is left.
  """

  log: Callable[[dict[str, float], int], None]
  close: Callable[[], None]
