"""Writes TensorBoard's event files to `logs/<stage>/`."""

from mllm_selector_jax.pipeline.trackers.tracker import Job, Tracker


def open_tensorboard(job: Job) -> Tracker:
  """Open an event file; those of earlier processes stay beside it."""
  import tensorboardX

  writer = tensorboardX.SummaryWriter(str(job.folder / job.title.replace(" ", "-")))
  # TensorBoard shows texts as Markdown.
  lines = [f"| {key} | {value} |" for key, value in job.settings.items()]
  writer.add_text("settings", "\n".join(["| key | value |", "|---|---|", *lines]))

  def log(values: dict[str, float], step: int) -> None:
    for name, value in values.items():
      writer.add_scalar(name, value, step)

  return Tracker(log, writer.close)
