"""Our data path against arrays that LLaVA's own code gave.

They were written by `python benchmarks/llava_data.py --llava=... --write=...`.
"""

import collections
import json
import pathlib

import numpy as np
import pytest

from benchmarks.llava_cases import MASKED, picture
from mllm_selector_jax.data.images.image_forms import square_form
from mllm_selector_jax.data.tokens.conversation import TEMPLATES, Encoder
from mllm_selector_jax.types import ImageOptions, RowError
from tests import llama_like
from tests.fixed_images import fixed_images, sizes_of

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden/llava.json").read_text())
CASES = collections.defaultdict(list)
for _row in GOLDEN["rows"]:
  CASES[_row["template"], _row["case"]].append(_row)
IMAGE = -200


def encode(row):
  """Our ids, with IMAGE for the image, and supervised mask; or the reason."""
  tokenizer = llama_like.make_tokenizer(row["kind"])
  image = tokenizer.convert_tokens_to_ids("<image>")
  encoder = Encoder(
    tokenizer,
    TEMPLATES[row["template"]],
    fixed_images(image, GOLDEN["patches"]),
    row["max_length"],
    row["system"],
  )
  turns = [{"from": who, "value": value} for who, value in row["turns"]]
  try:
    sample = encoder.encode(turns, sizes_of(value for _, value in row["turns"]))
  except RowError as error:
    return error.reason
  return np.where(sample.tokens == image, IMAGE, sample.tokens), sample.supervised


def is_golden(row, found):
  if "outcome" in row:
    nothing = {
      "masks the row": [MASKED],
      "cuts all answers": ["too long", "no supervised token"],
    }
    return isinstance(found, str) and found in nothing[row["outcome"]]
  supervised = np.zeros(len(row["tokens"]), bool)
  for start, stop in row["supervised"]:
    supervised[start:stop] = True
  return (
    not isinstance(found, str)
    and found[0].tolist() == row["tokens"]
    and np.array_equal(found[1], supervised)
  )


@pytest.mark.parametrize("kind", llama_like.KINDS)
def test_the_tokenizers_are_those_of_the_golden_arrays(kind):
  assert llama_like.identify(kind) == GOLDEN["tokenizers"][kind]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_rows_are_llavas(case):
  """Or differ where the golden file says why."""
  for row in CASES[case]:
    same = row["differs"] in ("", MASKED)
    assert is_golden(row, encode(row)) == same, row["kind"]


def test_the_golden_file_covers_what_it_must():
  outcomes = {row.get("outcome", "kept") for row in GOLDEN["rows"]}
  assert outcomes == {"kept", "masks the row", "cuts all answers"}
  assert {template for template, _ in CASES} == {"vicuna_v1", "plain", "llama-2"}
  assert all(len(rows) == len(llama_like.KINDS) for rows in CASES.values())


@pytest.mark.parametrize("place", range(len(GOLDEN["pixels"])))
def test_pixels_are_llavas(place):
  golden = GOLDEN["pixels"][place]
  options = ImageOptions(8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
  found = square_form.to_pixels(picture(*golden["shape"]), options)
  assert found.ravel().tolist() == golden["pixels"]
