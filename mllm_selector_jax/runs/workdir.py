"""Where each artifact of a run lies."""

import dataclasses
from pathlib import Path

from mllm_selector_jax.runs.artifacts import Artifact


@dataclasses.dataclass(frozen=True)
class Workdir:
  """Where each artifact of a run lies; the names are documented in the README.

  Attributes:
    path: the folder that was asked for.
    pooled: the folder of the pool, where it is another.
    scored: the folder of the seed model and the scores, where it is another.
    seeded: the folder of the model that scores, where it is no seed model.
    top: the folder by which artifacts are named, where it is another.
  """

  path: Path
  pooled: Path | None = None
  scored: Path | None = None
  seeded: Path | None = None
  top: Path | None = None

  def name(self, artifact: Artifact) -> str:
    """What an artifact is called, in messages and in times.json."""
    return str(artifact.path.relative_to(self.top or self.path))

  def at_seed(self, seed: int, fresh_pool: bool) -> "Workdir":
    """The same, with what follows from an rng seed in a folder of its own."""
    own = self.path / "seeds" / str(seed)
    return dataclasses.replace(self, pooled=own if fresh_pool else None, scored=own)

  def at_fold(self, number: int) -> "Workdir":
    """The same, with the model of a fold and what it scores in a folder of its own."""
    own = (self.scored or self.path) / "rounds" / f"fold-{number}"
    return dataclasses.replace(self, pooled=self.pooled or self.path, scored=own)

  def at_round(self, number: int) -> "Workdir":
    """A later round: its scores are of the main arm's tuned model of the one before."""
    own = self.path / "rounds" / str(number)
    before = self if number == 2 else self.at_round(number - 1)
    pooled, seeded = self.pooled or self.path, before.tuned("main").path
    return Workdir(own, pooled, own, seeded, self.top or self.path)

  def at_search(self) -> "Workdir":
    """The trials of a search: arms of the same scores, in a folder of their own."""
    shared = self.scored or self.path
    return dataclasses.replace(
      self,
      path=shared / "search",
      pooled=self.pooled or self.path,
      scored=shared,
      top=self.top or self.path,
    )

  def list_scored(self) -> list["Workdir"]:
    """The workdir and those of a comparison's seeds, where there are scores."""
    seeds = sorted(p.name for p in (self.path / "seeds").glob("*") if p.name.isdigit())
    places = [self]
    for seed in map(int, seeds):
      shared = self.at_seed(seed, False)
      own = self.at_seed(seed, True)
      places.append(own if own.pool.provenance() else shared)
    return [p for p in places if p.scores.provenance() and p.pool.provenance()]

  def at_scores(self, inputs: dict[str, str]) -> "Workdir | None":
    """The place whose scores and pool have these digests."""
    for place in self.list_scored():
      found = {"scores": place.scores.digest(), "pool": place.pool.digest()}
      if found.items() <= inputs.items():
        return place
    return None

  @property
  def demo(self) -> Artifact:
    return Artifact((self.pooled or self.path) / "demo_pool", stage="check")

  @property
  def pool(self) -> Artifact:
    files = ("pool.parquet", "pool_summary.json")
    return Artifact((self.pooled or self.path) / "pool", files, "check")

  @property
  def aligned(self) -> Artifact:
    return Artifact(self.path / "aligned", stage="align")

  @property
  def prepared(self) -> Artifact:
    return Artifact(self.path / "prepared", stage="prepare")

  @property
  def seed(self) -> Artifact:
    if self.seeded is not None:
      return Artifact(self.seeded, stage="tune")
    return Artifact((self.scored or self.path) / "seed", stage="seed")

  @property
  def scores(self) -> Artifact:
    return Artifact((self.scored or self.path) / "scores", stage="score")

  def clusters(self, number: int, rng: int) -> Artifact:
    folder = (self.scored or self.path) / "clusters"
    return Artifact(folder / f"{number or 'auto'}-{rng}", stage="select")

  def doubts(self, bound: str) -> Artifact:
    return Artifact((self.scored or self.path) / "doubts" / bound, stage="select")

  @property
  def search(self) -> Artifact:
    return Artifact((self.scored or self.path) / "search" / "result", stage="select")

  @property
  def sweep(self) -> Artifact:
    return Artifact(self.path / "sweep", stage="select")

  def selection(self, arm: str) -> Artifact:
    return Artifact(self.path / "arms" / arm / "selection", stage="select")

  def export(self, arm: str, form: str) -> Artifact:
    folder = self.path / "arms" / arm / "exports"
    return Artifact(folder / form, stage="export-selection", bare=True)

  def tuned(self, arm: str) -> Artifact:
    return Artifact(self.path / "arms" / arm / "tuned", stage="tune")

  def evaluation(self, arm: str) -> Artifact:
    return Artifact(self.path / "arms" / arm / "evaluation", stage="evaluate")

  @property
  def leakage(self) -> Artifact:
    return Artifact((self.pooled or self.path) / "leakage", stage="evaluate")

  @property
  def comparison(self) -> Artifact:
    return Artifact(self.path / "compare", stage="compare")

  @property
  def measures(self) -> Artifact:
    return Artifact(self.path / "measures", stage="report")

  @property
  def report(self) -> Artifact:
    return Artifact(self.path / "report", ("report.html",), "report")

  @property
  def logs(self) -> Path:
    return (self.scored or self.path) / "logs"

  @property
  def log(self) -> Path:
    return self.path / "log.txt"
