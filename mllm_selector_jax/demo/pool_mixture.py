"""Plans the rows of the demo pool, as data: its mixture, noise and questions."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from mllm_selector_jax.demo.language import SHORT_ANSWER
from mllm_selector_jax.demo.question_families import TASKS, Turn
from mllm_selector_jax.demo.scenes import (
  Scene,
  chance,
  held_out,
  make_on_side,
  nudge,
  pick,
)
from mllm_selector_jax.types import InputError

# An easy head, on which the tiny base is trained (head.py), and a long tail.
MIXTURE = (
  ("shape", 0.22),
  ("color", 0.20),
  ("existence", 0.18),
  ("count", 0.08),
  ("position", 0.06),
  ("relation", 0.05),
  ("size", 0.05),
  ("text", 0.05),
  ("extreme", 0.04),
  ("fact", 0.04),
  ("value", 0.03),
)
# The kinds of broken rows, each with the reason for which a check sets it aside.
BROKEN = {
  "missing image": "missing image",
  "truncated image": "unreadable image",
  "empty answer": "no supervised token",
  "no answer turn": "no supervised token",
  "duplicate id": "duplicate id",
}
TEXT_SHARE = 2  # one in two questions without an image is reserved for evaluation
_FACTS_WITH_IMAGE = 0.15  # the share of facts that are asked with an image
_POOL_STREAM = 1


@dataclasses.dataclass(frozen=True)
class PoolOptions:
  """The options of the demo pool; shares are of all rows, unless noted otherwise.

  Attributes:
    rows: the number of records.
    seed: seed of all draws.
    mixture: the tasks with their weights.
    wrong: the share of the rows of `wrong_tasks` whose answers are wrong.
    wrong_tasks: the tasks in which wrong answers occur; empty for all.
    misaligned: the share of rows with the image of another row.
    duplicates: the share of rows that repeat an earlier row, with its image redrawn
      slightly differently.
    shared: the share of rows that ask about the image of an earlier row.
    hinted: the share of rows whose question gives its answer away.
    multi_turn: the share of rows with two or three turns.
    jpeg: the share of images that are JPEG; all others are PNG.
    broken: the number of rows, of all kinds together, that a check has to set aside.
  """

  rows: int = 6000
  seed: int = 0
  mixture: tuple[tuple[str, float], ...] = MIXTURE
  wrong: float = 0.12
  wrong_tasks: tuple[str, ...] = ()
  misaligned: float = 0.05
  duplicates: float = 0.03
  shared: float = 0.10
  hinted: float = 0.03
  multi_turn: float = 0.10
  jpeg: float = 0.15
  broken: int = 12

  def __post_init__(self):
    if self.rows < 1:
      raise InputError(f"rows is {self.rows}; a demo pool has at least 1 row.")
    if self.seed < 0:
      raise InputError(f"seed is {self.seed}; give a number from 0 upwards.")
    for name in "wrong misaligned duplicates shared hinted multi_turn jpeg".split():
      share = getattr(self, name)
      if not 0 <= share <= 1:
        raise InputError(f"{name} is {share}; give a share from 0 to 1.")
    if not 0 <= self.broken <= self.rows // 4:
      raise InputError(
        f"broken is {self.broken}; of {self.rows} rows, 0 to {self.rows // 4} may"
        " be broken."
      )
    for task in (*dict(self.mixture), *self.wrong_tasks):
      if task not in TASKS:
        raise InputError(f"there is no task {task!r}; known are {', '.join(TASKS)}.")
    weights = [weight for _, weight in self.mixture]
    if len(dict(self.mixture)) < len(weights):
      raise InputError("mixture names a task twice; give each one weight.")
    if not all(weight >= 0 for weight in weights) or not 0 < sum(weights) < math.inf:
      raise InputError(
        f"mixture has the weights {weights}; none may be below 0, and not all may be 0."
      )


@dataclasses.dataclass
class PlannedRow:
  """The content of a row's record, and the truth about it.

  Attributes:
    scene: the scene that the questions are about; None without an image.
    image: the path of the image in the image folder, which is that of another row if
      it is shared or misaligned.
    draws: whether `image` is drawn from the scene of this row.
    questions: the question of each turn.
    answers: the right answer of each turn.
    recorded_answers: the answer of each turn in the record, which may be wrong.
    wrong: whether the recorded answers are wrong.
    misaligned: whether the image is that of another scene.
    hinted: whether the question gives its answer away.
    duplicate_of: the row that this one repeats; None for none.
    broken: the kind of damage, a key of `BROKEN`; None for none.
  """

  row: int
  id: str
  task: str
  scene: Scene | None = None
  image: str | None = None
  draws: bool = False
  questions: tuple[str, ...] = ()
  answers: tuple[str, ...] = ()
  recorded_answers: tuple[str, ...] = ()
  wrong: bool = False
  misaligned: bool = False
  hinted: bool = False
  duplicate_of: int | None = None
  broken: str | None = None

  @property
  def answerable_without_image(self) -> bool:
    return self.hinted or self.task == "fact"


def plan_pool(options: PoolOptions) -> list[PlannedRow]:
  """Plans all rows of the pool, in its order."""
  rng = np.random.default_rng([options.seed, _POOL_STREAM, 0])
  rows = _assign_roles(options, rng)
  # The rows whose images other rows may use.
  owners: list[PlannedRow] = []
  shared = set(
    _choose(
      rng,
      "shared",
      options.shared * options.rows,
      [
        row
        for row in rows
        if row.task != "fact"
        and row.duplicate_of is None
        and not (row.misaligned or row.hinted or row.broken)
      ],
    )
  )
  for row in rows:
    row_rng = np.random.default_rng([options.seed, _POOL_STREAM, 1 + row.row])
    if row.duplicate_of is not None:
      _repeat(row_rng, row, rows[row.duplicate_of], options)
    elif not (row.row in shared and _ask_about_shared(row_rng, row, owners)):
      _ask_about_new(row_rng, row, options)
    if row.draws and not (row.broken or row.misaligned):
      owners.append(row)
  _misalign(rng, rows, owners)
  for row in rows:
    if row.broken == "duplicate id":
      row.id = pick(rng, [r.id for r in rows[: row.row] if not r.broken])
  return rows


def _assign_roles(options: PoolOptions, rng: np.random.Generator) -> list[PlannedRow]:
  """Assigns a task to each row, and kinds of noise to some, in exact shares."""
  tasks = _list_tasks(options)
  order = rng.permutation(options.rows)
  rows = [
    PlannedRow(row, f"demo-{row:06d}", tasks[int(order[row])])
    for row in range(options.rows)
  ]
  imaged = [row for row in rows if row.task != "fact"]

  originals = set()
  repeats = set(_choose(rng, "duplicates", options.duplicates * len(rows), imaged))
  seen: dict[str, list[int]] = {}
  for row in imaged:
    if row.row not in repeats:
      seen.setdefault(row.task, []).append(row.row)
    elif row.task in seen:
      row.duplicate_of = pick(rng, seen[row.task])
      originals.add(row.duplicate_of)

  fresh = [row for row in rows if row.duplicate_of is None]
  names = options.wrong_tasks or tuple(TASKS)
  eligible = [row for row in fresh if row.task in names]
  for row in _choose(rng, "wrong", options.wrong * len(eligible), eligible):
    rows[row].wrong = True

  eligible = [
    row
    for row in fresh
    if row.task != "fact" and not row.wrong and row.row not in originals
  ]
  # Row 0 is never broken, since a duplicate id needs an earlier row.
  broken = _choose(rng, "broken", options.broken, [row for row in eligible if row.row])
  for place, row in enumerate(sorted(broken)):
    rows[row].broken = tuple(BROKEN)[place % len(BROKEN)]
  eligible = [row for row in eligible if not row.broken]
  for row in _choose(rng, "misaligned", options.misaligned * len(rows), eligible):
    rows[row].misaligned = True
  eligible = [
    row
    for row in fresh
    if TASKS[row.task].hint and not row.misaligned and not row.broken
  ]
  for row in _choose(rng, "hinted", options.hinted * len(rows), eligible):
    rows[row].hinted = True
  return rows


def _list_tasks(options: PoolOptions) -> list[str]:
  """Lists the task of each row, with counts by weight and largest remainders."""
  weights = np.array([weight for _, weight in options.mixture])
  exact = weights / weights.sum() * options.rows
  counts = np.floor(exact).astype(int)
  by_remainder = np.argsort(counts - exact, kind="stable")
  counts[by_remainder[: options.rows - counts.sum()]] += 1
  return [
    task
    for (task, _), count in zip(options.mixture, counts, strict=True)
    for _ in range(count)
  ]


def _choose(
  rng: np.random.Generator, name: str, count: float, eligible: list[PlannedRow]
) -> list[int]:
  """Draws numbers of eligible rows for the option `name`; `count` is rounded."""
  count = round(count)
  if count > len(eligible):
    raise InputError(
      f"{name} asks for {count} rows, and the other options leave {len(eligible)} for"
      f" it; lower {name} or the others."
    )
  return [eligible[int(i)].row for i in rng.permutation(len(eligible))[:count]]


def _ask_about_new(rng: np.random.Generator, row: PlannedRow, options: PoolOptions):
  """Draws a new scene for a row, and questions about it."""
  task = TASKS[row.task]
  make = task.make_scene
  if make is None and chance(rng, _FACTS_WITH_IMAGE):
    make = TASKS[pick(rng, ("shape", "color", "text", "value"))].make_scene
  count = int(rng.integers(2, 4)) if chance(rng, options.multi_turn) else 1
  ask = (task.hint or task.ask) if row.hinted else task.ask
  turns: list[Turn] = []
  while not turns:
    if make is not None:
      row.scene = make_on_side(lambda: make(rng), held=False)
    turns = _ask_turns(rng, ask, row, 1 if row.hinted else count)
  _answer(rng, row, turns)
  if row.scene is not None:
    row.draws = True
    row.image = _name_image(rng, row, options)


def _ask_turns(
  rng: np.random.Generator, ask: Callable, row: PlannedRow, count: int
) -> list[Turn]:
  """Draws up to `count` different questions about the row's scene, possibly none."""
  turns: dict[str, Turn] = {}
  for _ in range(4 * count):
    turn = ask(rng, row.scene)
    if turn is None or (row.task == "fact" and held_out(turn.question, TEXT_SHARE)):
      continue
    turns.setdefault(turn.question, turn)
    if len(turns) == count:
      break
  return list(turns.values())


def _ask_about_shared(
  rng: np.random.Generator, row: PlannedRow, owners: list[PlannedRow]
) -> bool:
  """Draws a question about an earlier row's image; False if none was found."""
  for _ in range(40 if owners else 0):
    owner = pick(rng, owners)
    turn = TASKS[row.task].ask(rng, owner.scene)
    if turn is not None and turn.question not in owner.questions:
      row.scene, row.image = owner.scene, owner.image
      _answer(rng, row, [turn])
      return True
  return False


def _repeat(
  rng: np.random.Generator,
  row: PlannedRow,
  original: PlannedRow,
  options: PoolOptions,
):
  """Makes a row a near duplicate of an earlier one."""
  row.scene = make_on_side(lambda: nudge(rng, original.scene), held=False)
  row.questions, row.answers = original.questions, original.answers
  row.recorded_answers = original.recorded_answers
  row.wrong, row.hinted, row.draws = original.wrong, original.hinted, True
  row.image = _name_image(rng, row, options)


def _answer(rng: np.random.Generator, row: PlannedRow, turns: list[Turn]):
  row.questions = tuple(turn.question for turn in turns)
  row.answers = tuple(turn.answer for turn in turns)
  row.recorded_answers = row.answers
  if row.wrong:
    row.recorded_answers = tuple(
      pick(rng, [option for option in turn.options if option != turn.answer])
      for turn in turns
    )


def _name_image(rng: np.random.Generator, row: PlannedRow, options: PoolOptions):
  lossy = chance(rng, options.jpeg) or row.broken == "truncated image"
  return f"{row.scene.source}/{row.row:05d}.{'jpg' if lossy else 'png'}"


def _misalign(
  rng: np.random.Generator, rows: list[PlannedRow], owners: list[PlannedRow]
):
  """Gives each misaligned row the image of a row with a different scene."""
  for row in rows:
    if row.misaligned:
      others = [owner for owner in owners if owner.scene != row.scene]
      if not others:
        raise InputError("misaligned rows need another row's image; add rows.")
      row.image, row.draws = pick(rng, others).image, False


def to_prompt(question: str, first: bool = True) -> str:
  """Returns a question as a human turn; the first turn asks for a short answer."""
  return question + SHORT_ANSWER if first else question
