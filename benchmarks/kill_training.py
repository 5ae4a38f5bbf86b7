"""Training, killed (SIGKILL) at random points, comes out byte for byte the same.

    python -m benchmarks.kill_training [--kills=100] > docs/logs/kill_training.txt

Half of the kills hit a run of one process, half one of two processes on this
machine; there one of the two, drawn, is killed, and the other has to end by itself.
Once they have met, the point is drawn evenly over the checkpoints that are still to
be written, the time before the next and the export of the model included, and up to
0.1 s later. A killed run is started again, and killed again, until it ends; then every
file of `seed/`, the model's weights among them, is compared with those of an unbroken
run of as many processes. Tiny base, drawn pool, real processes, the real command
`seed`, a checkpoint every step.
"""

from benchmarks import kills

STEPS = 12


class Training(kills.Case):
  """Runs of `seed`; a piece is a step's checkpoint."""

  command, artifact, total = "seed", "seed", STEPS

  def written(self) -> int:
    """Steps whose checkpoint is on disk; all, once the model is being written."""
    if (self.folder / "seed").exists() or (self.partial / "hf").exists():
      return STEPS
    names = [path.name for path in self.partial.glob("checkpoints/*")]
    return max((int(name) for name in names if name.isdigit()), default=0)

  def where(self) -> str:
    if (self.folder / "seed").exists():
      return "the model is there"
    if (self.partial / "hf").exists():
      return "writing the model"
    torn = any(self.partial.glob("checkpoints/*tmp*"))
    text = f"{self.written()} of {STEPS} checkpoints written"
    return f"{text}, one half" if torn else text

  def check_more(self) -> None:
    """The model is there, all steps are told, and no half of a checkpoint is left."""
    assert "hf/model.safetensors" in self.wanted
    assert self.wanted["metrics.jsonl"].count(b"\n") == STEPS
    left = [path.name for path in (self.folder / "seed/checkpoints").iterdir()]
    assert left == [str(STEPS)], left


if __name__ == "__main__":
  settings = {"pool.demo.rows": 60, "seed.rows": str(4 * STEPS), "seed.batch": 4}
  kills.main(Training, __doc__, settings | {"seed.save_every": 1})
