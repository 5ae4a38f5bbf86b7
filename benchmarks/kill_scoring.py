"""Scoring, killed (SIGKILL) at random points, comes out byte for byte the same.

    python -m benchmarks.kill_scoring [--kills=100] > docs/logs/kill_scoring.txt

Half of the kills hit a run of one process, half one of two processes on this
machine; there one of the two, drawn, is killed, and the other has to end by itself.
Once they have met, the point is drawn evenly over the parts that are still to be
written, the time before the next and the joining of all included, and up to 0.1 s
later. A killed run is started again, and killed again, until it ends; then every file
of `scores/` is compared with those of an unbroken run of as many processes, and the
rows with the pool's. Tiny base, drawn pool, real processes, the real command `score`.
"""

import json

import numpy as np

from benchmarks import kills
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.scoring.score_table import read_scores


class Scoring(kills.Case):
  """Runs of `score`; a piece is a part."""

  command, artifact = "score", "scores"

  @property
  def total(self) -> int:
    return json.loads(self.wanted["summary.json"])["passes"]["main"]["parts"]

  def written(self) -> int:
    return len(list(self.partial.glob("passes/*/*.json")))

  def where(self) -> str:
    if (self.folder / "scores").exists() or (self.partial / "summary.json").exists():
      return "tidying up"
    if any(self.partial.glob("part-*")):
      return "joining the parts"
    return f"{self.written()} of {self.total} parts written"

  def check_more(self) -> None:
    """Each usable row stands in the table once."""
    rows = read_scores(self.folder / "scores").row
    np.testing.assert_array_equal(
      rows, np.flatnonzero(read_table(self.folder / "pool.parquet").ok)
    )


if __name__ == "__main__":
  settings = {"pool.demo.rows": 240, "score.part_rows": 8, "score.batch_rows": 4}
  kills.main(Scoring, __doc__, settings)
