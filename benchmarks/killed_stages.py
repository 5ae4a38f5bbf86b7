"""The stages that `benchmarks/kills.py` kills: their settings, models and pools."""

import dataclasses
import pathlib
from typing import Any

from tests.stages.family_bases import make_base
from tests.stages.test_families import RUN, write_pool


@dataclasses.dataclass(frozen=True)
class Chain:
  """Commands that follow one another in one workdir.

  Attributes:
    family: of the tiny base.
    settings: values by key, over those of `small_run.make_config`.
    commands: in their order; those that are killed have a name of their own.
  """

  family: str
  settings: dict[str, Any]
  commands: dict[str, str]

  def prepare(self, place: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """Makes the base, and the pool unless it is drawn; returns base and settings."""
    base = make_base(place / "base", self.family)
    settings = dict(self.settings)
    if not settings["pool.demo.rows"]:
      settings |= write_pool(place / "pool")
    return base, {
      key: str(base) if value is BASE else value for key, value in settings.items()
    }


BASE = object()  # stands for the path of the base
_DRAWN = {
  "model.max_length": 128,
  "pool.demo.rows": 60,
  "pool.demo.questions": 1,
  "seed.rows": "24",
  "seed.batch": 4,
  "seed.save_every": 1,
  "tune.batch": 4,
  "tune.save_every": 1,
  "score.part_rows": 8,
  "score.batch_rows": 4,
}
_OTHERS = RUN | {"seed.save_every": 1, "tune.save_every": 1, "score.part_rows": 4}
_MODEL_STAGES = ("seed", "score", "tune", "evaluate")


def _name_stages(family: str) -> dict[str, str]:
  commands = ("check", "seed", "score", "select", "tune", "evaluate")
  return {
    f"{command} ({family})" if command in _MODEL_STAGES else f"-{command}": command
    for command in commands
  }


# A name with a dash is of a command that is only run.
CHAINS = {
  "llava": Chain(
    "llava",
    _DRAWN | {"prepare.shard_rows": 8, "prepare.workers": 2},
    {
      "check": "check",
      "prepare": "prepare",
      "seed": "seed",
      "score": "score",
      "select": "select",
      "tune": "tune",
      "evaluate": "evaluate",
      "report": "report",
      "export": "export-selection",
    },
  ),
  "align": Chain(
    "llava",
    _DRAWN
    | {"model.conversation": "plain", "align.rows": "24", "align.batch": 4}
    | {"align.row_length": 80, "align.save_every": 1},
    {"-check": "check", "align": "align"},
  ),
  "search": Chain(
    "llava",
    _DRAWN
    | {"score.model": BASE, "select.search.candidates": 3, "select.groups": "source"}
    | {"select.search.kl_weight": "0.1", "select.search.steps": 1}
    | {"select.search.cost": 9.0, "select.search.development": "25%"},
    {"-check": "check", "-score": "score", "search": "select"},
  ),
  "compare": Chain(
    "llava",
    _DRAWN
    | {"seed.rows": "10", "compare.strategies": ("kl", "random")}
    | {"compare.budgets": "25%", "compare.seeds": "3", "compare.full": False},
    {"compare": "compare"},
  ),
  "qwen3_vl": Chain("qwen3_vl", _OTHERS, _name_stages("qwen3_vl")),
  "internvl": Chain(
    "internvl", _OTHERS | {"model.max_tiles": 3}, _name_stages("internvl")
  ),
}
