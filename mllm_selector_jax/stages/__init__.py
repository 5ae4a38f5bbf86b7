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
    keys: the keys of the config that the command reads; a section stands for all of its
      keys.
    flags: the flags that only some commands read, and that this one does.
    note: a sentence for the help about keys that it reads under a condition only.
  """

  name: str
  summary: str
  keys: tuple[str, ...] = ()
  flags: tuple[str, ...] = ()
  note: str = ""

  def __call__(self, run: Any) -> None:
    """Runs the command; `run` is a `runs.context.Run`."""
    module = importlib.import_module(f"{__name__}.{self.name}")
    getattr(module, self.name)(run)


_TEXT = (
  *("rng_seed", "model.path", "model.conversation", "model.chat_date", "model.system"),
  *("model.row_system", "model.content_specials", "model.box_form", "model.pad_images"),
  *("model.max_tiles", "model.resize_pixels", "model.max_length"),
)
_ROWS = ("pool.data", "pool.images", "pool.links", "pool.demo.rows")
_MODEL = ("rng_seed", "model", "mesh", *_ROWS, "pool.max_pixels")
_STAGES = ("seed", "score", "select", "tune", "evaluate")
_ALL = ("rng_seed", "pool", "model", "mesh", "log", *_STAGES)
_SELECT_NOTE = (
  "select.search.candidates and select.bound=thorough tune models of their own, and"
  " read the keys of seed, score, tune, evaluate, model and mesh as well."
)

_COMMANDS = (
  Command(
    "run",
    "Runs check, seed, score, select, tune, evaluate and report.",
    (*_ALL, "plan", "report"),
  ),
  Command(
    "check",
    "Says what the pool holds and which rows cannot be used.",
    ("pool", *_TEXT),
  ),
  Command(
    "prepare",
    "Writes the pool once as a TFDS data set of records and images.",
    ("prepare", "pool", *_TEXT),
  ),
  Command(
    "plan",
    "Estimates memory, time and disk of the long stages.",
    ("plan", "rng_seed", "model", "mesh", "pool.data", "pool.demo.rows", *_STAGES),
  ),
  Command(
    "align",
    "Trains the base's projector alone, on a pool of captions.",
    ("align", *_MODEL, "pool.most_aside", "log"),
  ),
  Command(
    "seed",
    "Fine-tunes the base on a small random share: the seed model.",
    ("seed", *_MODEL, "pool.most_aside", "log"),
  ),
  Command(
    "score",
    "Scores every usable row with the seed model or `score.model`.",
    ("score", *_MODEL, "pool.most_aside"),
  ),
  Command(
    "select",
    "Selects the rows to keep for every arm of the config.",
    ("select", "score.signals", "rng_seed"),
    note=_SELECT_NOTE,
  ),
  Command(
    "tune",
    "Fine-tunes the base on every arm's selection.",
    ("tune", "select.control", *_MODEL, "log"),
    ("arm",),
  ),
  Command(
    "evaluate",
    "Asks every arm's tuned model the evaluation's questions.",
    ("evaluate", "select.control", *_MODEL, "pool.max_images", "log"),
    ("arm",),
  ),
  Command(
    "compare",
    "Compares strategies, budgets and seeds from one base.",
    ("compare", *_ALL, "report"),
  ),
  Command(
    "report",
    "Writes `report.html` and `explorer.html` from what is there.",
    ("report", "score.signals", "select.rounds", "rng_seed", *_ROWS),
  ),
  Command(
    "explain",
    "Says why the rows of --id were kept or not.",
    ("score.signals",),
    ("id", "arm"),
  ),
  Command(
    "measure",
    "Measures how diverse the rows of --ids are.",
    ("select", "score.signals", "rng_seed"),
    ("ids", "out"),
  ),
  Command(
    "arms",
    "Lists the arms: rows, size, stages, results, and what main is.",
  ),
  Command(
    "clean",
    "Removes the arms that --arm=NAME[,NAME] names.",
    (),
    ("arm",),
  ),
  Command(
    "manifest",
    "Writes the hashes of all results, for `sha256sum -c` and a signature.",
  ),
  Command(
    "export_selection",
    "Writes an arm's kept rows as trainers read them.",
    ("export_selection", "rng_seed", *_ROWS),
    ("arm",),
  ),
)
COMMANDS = {command.name.replace("_", "-"): command for command in _COMMANDS}
