"""The commands, each in a short module that is imported when the command is called."""

import dataclasses
import importlib
from typing import Any


@dataclasses.dataclass(frozen=True)
class Command:
  """A command of the command line.

  Attributes:
    name: the name of the function, and of its module in this folder.
    summary: what the command does, for the help text.
  """

  name: str
  summary: str

  def __call__(self, run: Any) -> None:
    """Runs the command; `run` is a `runs.context.Run`."""
    module = importlib.import_module(f"{__name__}.{self.name}")
    getattr(module, self.name)(run)


_COMMANDS = (
  Command("run", "Runs check, seed, score, select, tune, evaluate and report."),
  Command("check", "Says what the pool holds and which rows cannot be used."),
  Command("prepare", "Writes the pool once as a TFDS data set of records and images."),
  Command("plan", "Estimates memory, time and disk of the long stages."),
  Command("align", "Trains the base's projector alone, on a pool of captions."),
  Command("seed", "Fine-tunes the base on a small random share: the seed model."),
  Command("score", "Scores every usable row with the seed model or `score.model`."),
  Command("select", "Selects the rows to keep for every arm of the config."),
  Command("tune", "Fine-tunes the base on every arm's selection."),
  Command("evaluate", "Asks every arm's tuned model the evaluation's questions."),
  Command("compare", "Compares strategies, budgets and seeds from one base."),
  Command("report", "Writes `report.html` from what the other stages have left."),
  Command("explain", "Says why the rows of --id were kept or not."),
  Command("measure", "Measures how diverse the rows of --ids are."),
  Command("arms", "Lists the arms: rows, size, stages, results, and what main is."),
  Command("clean", "Removes the arms that --arm=NAME[,NAME] names."),
  Command("export_selection", "Writes an arm's kept rows as trainers read them."),
)
COMMANDS = {command.name.replace("_", "-"): command for command in _COMMANDS}
