"""Reads entries of lists that are bare texts, and describes entries and matches."""

import collections
import contextlib
import csv

from mllm_selector_jax import listing
from mllm_selector_jax.inputs.lists import Reference

EXACT = (
  "To be exact, give row numbers or hashes beside the ids, as exports/ids/ids.txt and"
  " selection.parquet have them; FILE#COLUMN names a column of row numbers."
)


def split_text(text: str) -> list[str]:
  """Split a text at commas; an id that contains commas may be in quotes."""
  if (inside := listing.read_brackets(text)) is not None:
    return inside
  parts = text.split(",")
  if '"' in text:
    with contextlib.suppress(csv.Error):  # a line break outside quotes
      parts = next(csv.reader([text], skipinitialspace=True))
  return [part.strip() for part in parts if part.strip()]


def read_bare(entry: Reference) -> Reference:
  """Read a text that is not an id as `row=5`, as `hash=...`, or as a stripped id."""
  bare = Reference(entry.id, inline=entry.inline, score=entry.score)
  if entry != bare or entry.id is None:
    return entry
  text = entry.id.strip()
  kind, _, value = text.partition("=")
  if kind == "row" and value.isascii() and value.isdecimal():
    return Reference(row=int(value), score=entry.score)
  if kind == "hash" and value:
    return Reference(hash=value, score=entry.score)
  return bare._replace(id=text)


def name_entry(entry: Reference) -> str:
  parts = zip(("id", "row", "hash"), entry[:3], strict=True)
  return ", ".join(f"{kind} {value!r}" for kind, value in parts if value is not None)


def describe_counts(counts: collections.Counter[str]) -> list[str]:
  """Describe the uncertain matches; each kind that occurred gives one note."""
  texts = {
    "ids": "ids that several rows share: {}; all of their {} rows are taken."
    f" {EXACT}",
    "hashes": "hashes of several equal rows: {}; all of their {} rows are taken.",
    "moved": "entries found by their hash, since the order of the pool's rows has"
    " changed: {}.",
    "changed": "entries found by their id or row number, since no row of the pool has"
    " their hash: {}; the content of these rows has changed.",
    "alike": "records that match several rows with the same text and image name but"
    f" different content: {{}}; the first of these rows are taken. {EXACT}",
    "missing": "entries that match no row of the pool: {}, of {}; select.most_missing"
    " allows that, and they are left out.",
    "renamed": "records found only by their text, since the pool has other names for"
    " their images: {}.",
  }
  return [
    text.format(f"{counts[kind]:,}", f"{counts[f'rows of {kind}']:,}")
    for kind, text in texts.items()
    if counts[kind]
  ]
