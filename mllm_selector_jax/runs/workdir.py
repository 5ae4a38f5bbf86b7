"""Says where each artifact of a run is stored."""

import dataclasses
from pathlib import Path

from mllm_selector_jax.runs import arm_pointers
from mllm_selector_jax.runs.artifacts import Artifact


@dataclasses.dataclass(frozen=True)
class Workdir:
  """The folders of a run's artifacts, which `docs/outputs.md` documents.

  Attributes:
    path: the folder of all artifacts for which no other folder is given.
    pooled: the folder of the pool; None for `path`.
    scored: the folder of the seed model and the scores; None for `path`.
    seeded: the folder of the model that scores; None for the seed model.
    top: the folder that names of artifacts are relative to; None for `path`.
    pointed: the arms that this process has let pointers name, by the path of `arms/`
      and the name of the pointer. They are known before a shared volume shows them.
  """

  path: Path
  pooled: Path | None = None
  scored: Path | None = None
  seeded: Path | None = None
  top: Path | None = None
  pointed: dict[tuple[Path, str], str] = dataclasses.field(
    default_factory=dict, compare=False, repr=False
  )

  @property
  def arms(self) -> Path:
    """The folder of the arms and of the pointers to them."""
    return self.path / "arms"

  def resolve(self, arm: str) -> str:
    """Returns the name of an arm's folder; `arm` may be a pointer such as "main"."""
    if (self.arms, arm) in self.pointed:
      return self.pointed[self.arms, arm]
    return arm_pointers.read(self.arms, arm) or arm

  def arm(self, arm: str) -> Path:
    """Returns the folder of an arm."""
    return self.arms / self.resolve(arm)

  def name(self, artifact: Artifact) -> str:
    """Returns the name of an artifact, for messages and times.json."""
    return str(artifact.path.relative_to(self.top or self.path))

  def at_seed(self, seed: int, fresh_pool: bool) -> "Workdir":
    """Returns the workdir of one rng seed of a comparison.

    Args:
      seed: the rng seed.
      fresh_pool: whether the seed has a pool of its own, too.
    """
    folder = self.path / "seeds" / str(seed)
    pooled = folder if fresh_pool else None
    return dataclasses.replace(self, pooled=pooled, scored=folder)

  def at_fold(self, number: int) -> "Workdir":
    """Returns the workdir of one fold, with a model and scores of its own."""
    folder = (self.scored or self.path) / "rounds" / f"fold-{number}"
    return dataclasses.replace(self, pooled=self.pooled or self.path, scored=folder)

  def at_round(self, number: int) -> "Workdir":
    """Returns the workdir of a round from 2 on.

    Its scores are those of the main arm's model that the previous round tuned.
    """
    folder = self.path / "rounds" / str(number)
    previous = self if number == 2 else self.at_round(number - 1)
    pooled, seeded = self.pooled or self.path, previous.tuned("main").path
    top = self.top or self.path
    return Workdir(folder, pooled, folder, seeded, top, self.pointed)

  def at_search(self) -> "Workdir":
    """Returns the workdir of a search, whose trials are arms of the same scores."""
    shared = self.scored or self.path
    return dataclasses.replace(
      self,
      path=shared / "search",
      pooled=self.pooled or self.path,
      scored=shared,
      top=self.top or self.path,
    )

  def list_scored(self) -> list["Workdir"]:
    """Lists those of this workdir and a comparison's seeds that have scores."""
    seeds = sorted(p.name for p in (self.path / "seeds").glob("*") if p.name.isdigit())
    workdirs = [self]
    for seed in map(int, seeds):
      shared_pool = self.at_seed(seed, False)
      fresh_pool = self.at_seed(seed, True)
      workdirs.append(fresh_pool if fresh_pool.pool.provenance() else shared_pool)
    return [w for w in workdirs if w.scores.provenance() and w.pool.provenance()]

  def at_scores(self, inputs: dict[str, str]) -> "Workdir | None":
    """Returns the workdir whose scores and pool have these digests, if there is one."""
    for workdir in self.list_scored():
      digests = {"scores": workdir.scores.digest(), "pool": workdir.pool.digest()}
      if digests.items() <= inputs.items():
        return workdir
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
    return Artifact(self.arm(arm) / "selection", stage="select")

  def export(self, arm: str, form: str) -> Artifact:
    folder = self.arm(arm) / "exports"
    return Artifact(folder / form, stage="export-selection", bare=True)

  def tuned(self, arm: str) -> Artifact:
    return Artifact(self.arm(arm) / "tuned", stage="tune")

  def evaluation(self, arm: str) -> Artifact:
    return Artifact(self.arm(arm) / "evaluation", stage="evaluate")

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
    files = ("report.html", "explorer.html")
    return Artifact(self.path / "report", files, "report")

  @property
  def logs(self) -> Path:
    return (self.scored or self.path) / "logs"

  @property
  def log(self) -> Path:
    return self.path / "log.txt"
