"""A check parses each record, reads each image and tokenises each row once."""

import collections

import pytest

from mllm_selector_jax.data.images import decoding, pictures
from mllm_selector_jax.data.json_text import parsing
from mllm_selector_jax.data.tokens.conversation import Encoder
from tests.data.pools_on_the_spot import check_records, make_record, write_images

ROWS = 40


class Decoder:
  """Counts what the parser of records is asked for."""

  def __init__(self, real, counts):
    self._real, self._counts = real, counts

  def raw_decode(self, *arguments):
    value, end = self._real.raw_decode(*arguments)
    self._counts["records"] += isinstance(value, dict) and "conversations" in value
    return value, end

  def decode(self, *arguments):
    self._counts["records"] += 1
    return self._real.decode(*arguments)


@pytest.fixture
def counts(monkeypatch):
  found = collections.Counter()

  def watch(owner, name, label, count=lambda *arguments: 1):
    real = getattr(owner, name)

    def call(*arguments, **options):
      found[label] += count(*arguments)
      return real(*arguments, **options)

    monkeypatch.setattr(owner, name, call)

  watch(decoding, "decode_image", "decoded images")
  watch(pictures, "_read_picture", "read images")
  watch(Encoder, "encode_many", "tokenised rows", lambda _, rows: len(rows))
  monkeypatch.setattr(parsing, "DECODER", Decoder(parsing.DECODER, found))
  return found


def test_a_check_does_everything_once(tmp_path, counts):
  names = [f"{number}.png" for number in range(5)]
  write_images(tmp_path / "images", *names)
  records = [make_record(row, names[row % 5]) for row in range(ROWS)]
  summary, _ = check_records(tmp_path, records)
  assert summary["ok"] == ROWS
  # One record more is parsed where the file's layout is found.
  assert ROWS <= counts.pop("records") <= ROWS + 1
  assert counts == {
    "decoded images": 5, "read images": 5, "tokenised rows": ROWS
  }  # fmt: skip
