"""Where each artifact of a run lies."""

import dataclasses
from pathlib import Path

from mllm_selector_jax.artifacts import Artifact


@dataclasses.dataclass(frozen=True)
class Workdir:
  """Where each artifact of a run lies; the names are documented in the README.

  Attributes:
    path: the folder that was asked for.
    pooled: the folder of the pool, where it is another.
    scored: the folder of the seed model and the scores, where it is another.
  """

  path: Path
  pooled: Path | None = None
  scored: Path | None = None

  def at_seed(self, seed: int, fresh_pool: bool) -> "Workdir":
    """The same, with what follows from an rng seed in a folder of its own."""
    own = self.path / "seeds" / str(seed)
    return dataclasses.replace(self, pooled=own if fresh_pool else None, scored=own)

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
      if found == inputs:
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
    return Artifact((self.scored or self.path) / "seed", stage="seed")

  @property
  def scores(self) -> Artifact:
    return Artifact((self.scored or self.path) / "scores", stage="score")

  def clusters(self, number: int, rng: int) -> Artifact:
    folder = (self.scored or self.path) / "clusters"
    return Artifact(folder / f"{number or 'auto'}-{rng}", stage="select")

  @property
  def sweep(self) -> Artifact:
    return Artifact(self.path / "sweep", stage="select")

  def selection(self, arm: str) -> Artifact:
    return Artifact(self.path / "arms" / arm / "selection", stage="select")

  def exports(self, arm: str) -> Artifact:
    return Artifact(self.path / "arms" / arm / "exports", stage="export-selection")

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
