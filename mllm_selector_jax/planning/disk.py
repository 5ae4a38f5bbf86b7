"""Estimates what a run writes to disk, item by item."""

from typing import Any, NamedTuple

from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.pipeline.arm_list import format_size
from mllm_selector_jax.planning import estimate

TABLE_BYTES = 250  # of a row of pool.parquet, most of it hashes
SCORE_BYTES = 200  # of a row of the score table
DIMENSIONS = 256  # of an embedding, at the most (scoring/signals.py)


class Item(NamedTuple):
  """Something that a run writes.

  Attributes:
    name: for people.
    bytes: on disk.
    text: how the bytes come about.
    counts: whether a run writes it; if not, another command does.
  """

  name: str
  bytes: float
  text: str
  counts: bool = True


def list_items(
  config: MllmConfig,
  sections: dict[str, tuple[Any, int]],
  rows: int,
  kept: int,
  record_bytes: float,
  image_bytes: float,
  scored: bool = True,
) -> list[Item]:
  """List what a run writes.

  Args:
    config: The base model's config.
    sections: The recipe of each kind of training, and how many models it makes.
    rows: Usable rows of the pool.
    kept: Rows of the selection.
    record_bytes: Of all records.
    image_bytes: Of all images.
    scored: Whether the run scores the pool.
  """
  items = [
    Item("pool table", TABLE_BYTES * rows, f"{rows:,} rows x {TABLE_BYTES} bytes"),
    Item(
      "pool copy",
      record_bytes + image_bytes,
      f"only if `prepare` is run: records, and {format_size(image_bytes)} of images",
      counts=False,
    ),
  ]
  if scored:
    width = min(config.decoder.width, DIMENSIONS)
    items += [
      Item("scores", SCORE_BYTES * rows, f"{rows:,} rows x {SCORE_BYTES} bytes"),
      Item("embeddings", 4 * width * rows, f"{rows:,} rows x {width} float32 numbers"),
    ]
  for name, (section, models) in sections.items():
    items += _list_training(config, name, section, models)
  items.append(
    Item(
      "exports",
      record_bytes * kept / max(rows, 1),
      f"{kept:,} records for each format; images are named, not copied",
    )
  )
  return items


def _list_training(
  config: MllmConfig, name: str, section: Any, models: int
) -> list[Item]:
  """List the models of a kind of training, and their checkpoints."""
  parameters = sum(estimate.parameter_counts(config).values())
  trained = estimate.count_trainable(config, section)
  moment = 2 if section.first_moment == "bfloat16" else 4
  # One more is written before the oldest is deleted.
  count = section.keep + section.keep_best
  each = (8 + moment) * trained
  adapter = 4 * trained if section.lora.rank else 0
  return [
    Item(
      f"{name}: models",
      models * (4 * parameters + adapter),
      f"{models} x {format_size(4 * parameters + adapter)}, float32",
    ),
    Item(
      f"{name}: checkpoints",
      (models * count + 1) * each,
      f"{models * count} kept and 1 being written x {format_size(each)}: trained"
      " parameters and Adam's moments",
    ),
  ]


def total(items: list[Item]) -> float:
  """Return the bytes of what a run writes."""
  return sum(item.bytes for item in items if item.counts)


def format_items(items: list[Item], path: Any, free: int) -> list[str]:
  """Format the items as lines, with what is free at a path."""
  lines = [
    f"  {item.name:20} {format_size(item.bytes):>10}  ({item.text})" for item in items
  ]
  whole = total(items)
  lines.insert(
    0, f"Disk: about {format_size(whole)} under {path}; {format_size(free)} are free."
  )
  if whole > free:
    lines.append("  Warning: that is not enough; make room or give another --workdir.")
  return lines
