"""What rows of one image share: the tokens through the image, and its pixels."""

import numpy as np
import pytest
from PIL import Image

from mllm_selector_jax.data.images import decoding
from mllm_selector_jax.data.images.image_forms import square_form
from mllm_selector_jax.data.packing.prefixes import list_prefixes
from mllm_selector_jax.data.packing.tree_packing import make_plan
from mllm_selector_jax.data.pool import pool_check
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.types import ImageOptions
from tests.data.pools_on_the_spot import (
  OPTIONS,
  make_encoder,
  make_record,
  talk,
  write_images,
  write_records,
)
from tests.data.test_conversation import CONVERSATIONS
from tests.data.test_conversation import make_encoder as make_llava
from tests.data.test_conversation import talk as talk_of
from tests.data.test_templates import SOURCES, make
from tests.fixed_images import ONE_IMAGE, sizes_of

ENCODERS = {
  **{name: lambda name=name: make(name) for name in ("chatml", "llama-2")},
  **{kind: lambda s=s: make("chat", s) for kind, s in SOURCES.items()},
  **{f"vicuna {k}": lambda k=k: make_llava(k) for k in ("bytes", "first")},
  "no system": lambda: make_llava(system=""),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_the_trunk_ends_with_the_image_of_the_first_turn(name):
  encoder, keys = ENCODERS[name](), set()
  for kind, values in CONVERSATIONS.items():
    sizes = sizes_of(values)
    sample = encoder.encode(talk_of(*values), sizes)
    prefixes = list_prefixes(sample, ["pixels"] * len(sizes))
    if not sizes or kind == "later image":
      assert prefixes == [], kind
      continue
    place = np.flatnonzero(sample.tokens == encoder.image_token)
    assert [prefix.tokens for prefix in prefixes] == [place[0], place[-1] + 1], kind
    assert [prefix.tiles for prefix in prefixes] == [0, 1]
    keys.add(prefixes[1].key)
    # No position of the trunk predicts a token that only one row has.
    assert not sample.supervised[: place[-1] + 2].any()
  assert len(keys) == 1


def test_an_answer_right_behind_the_image_shares_nothing():
  encoder = make_llava(template="plain")
  sample = encoder.encode(talk_of("<image>", "a red circle"), ONE_IMAGE)
  assert sample.supervised[sample.images[0].stop]
  assert list_prefixes(sample, ["pixels"]) == []


@pytest.fixture
def folder(tmp_path):
  write_images(tmp_path / "images", "a/1.png", "a/2.png")
  return tmp_path


def test_rows_share_up_to_their_last_common_image():
  encoder = make_llava(template="vicuna_v1")

  def list_keys(text, pixels):
    sample = encoder.encode(talk_of(text, "red"), sizes_of([text]))
    return [prefix.key for prefix in list_prefixes(sample, pixels)]

  both = list_keys("<image> and <image> differ?", ["a", "b"])
  assert len(both) == 3
  assert list_keys("<image> and <image> alike?", ["a", "b"]) == both
  assert list_keys("<image> and <image> differ?", ["a", "c"])[:2] == both[:2]
  assert list_keys("<image> and <image> differ?", ["a", "c"])[2] != both[2]
  assert list_keys("<image> or <image>?", ["a", "b"])[:2] == both[:2]
  assert list_keys("<image> or <image>?", ["a", "b"])[2] != both[2]
  assert list_keys("what?<image>", ["a"]) == both[:2]
  assert list_keys("<image>", ["b"])[0] == both[0]


def run(folder, records, options=OPTIONS):
  path = write_records(folder / "pool.json", records)
  out = folder / "pool.parquet"
  pool_check.check_pool(
    [path], str(folder / "images"), make_encoder(options=options), 10_000, out
  )
  return read_table(out)


def later(image):
  turns = talk("how many?", "two") + talk("<image>and here?", "one")
  return {"id": f"later {image}", "image": image, "conversations": turns}


def test_columns_of_a_checked_pool(folder):
  """Equal pixels in other files are equal: in another format, or padded as we pad."""
  root = folder / "images"
  image = Image.open(root / "a/1.png")
  image.save(root / "same.bmp")
  square = Image.new("RGB", (9, 9), OPTIONS.background)
  square.paste(image, (1, 0))
  square.save(root / "padded.png")
  (root / "broken.png").write_bytes(b"\x89PNG")
  names = ["a/1.png", "a/1.png", "same.bmp", "padded.png", "a/2.png", None]
  records = [make_record(number, name) for number, name in enumerate(names)]
  records += [later("a/1.png"), make_record(7, "broken.png"), make_record(8, "a/1.png")]
  records[8]["conversations"] = []
  table = run(folder, records)
  assert table.ok.tolist() == [True] * 7 + [False] * 2
  ((one,), (two,)) = table.pixels[0], table.pixels[4]
  assert one != two and len(one) == len(two) == 32
  assert list(table.pixels) == [(one,)] * 4 + [(two,), (), (one,), (), (one,)]
  assert table.image_hashes[0] != table.image_hashes[2]
  prefixes = table.prefixes
  assert np.diff(prefixes.bounds).tolist() == [2] * 5 + [0] * 4
  trunk = prefixes.tokens[1]
  assert prefixes.tokens[1::2].tolist() == [trunk] * 5
  keys = prefixes.keys[1::2]
  assert keys.dtype == np.uint64
  assert (keys == keys[0]).tolist() == [True] * 4 + [False]

  ok = np.flatnonzero(table.ok)
  plan = make_plan(table.tokens[ok], 300, prefixes.take(ok, 1), table.tiles[ok])
  trees = [tree for number in range(len(plan)) for tree in plan.row(number)]
  assert sorted(trees) == [(0, [4]), (0, [5]), (0, [6]), (trunk, [0, 1, 2, 3])]


def test_pixels_are_those_that_the_model_reads(folder):
  cropped = ImageOptions(8, (0.5,) * 3, (0.5,) * 3, pad=False)
  one, other = (
    run(folder, [make_record(0, "a/1.png")], options).pixels[0][0]
    for options in (OPTIONS, cropped)
  )
  assert one != other


def test_one_decode_of_an_image_serves_both_hashes(folder, monkeypatch):
  calls = []

  def watch(owner, name):
    real = getattr(owner, name)

    def call(*arguments, **options):
      calls.append(name)
      return real(*arguments, **options)

    monkeypatch.setattr(owner, name, call)

  watch(decoding, "decode_image")
  watch(square_form, "to_pixels")
  run(folder, [make_record(n, f"a/{n % 2 + 1}.png") for n in range(50)])
  assert sorted(calls) == ["decode_image"] * 2 + ["to_pixels"] * 2
