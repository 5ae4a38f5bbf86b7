"""The forms in which LLaVA's own checkpoints state the sizes of images."""

import ast
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface.model_families.original_pinpoints import (
  Pinpoints,
  read_pinpoints,
)
from mllm_selector_jax.types import InputError
from tests.models.huggingface import bases, loose


@pytest.mark.parametrize("text", ["(1x1),...,(6x6)", " (1x1), ..., (6x6) "])
def test_the_text_of_llava_onevision_names_every_grid(text):
  pinpoints = read_pinpoints(text)
  assert pinpoints.in_tiles and len(pinpoints.pairs) == 36
  # LLaVA's order: its pairs are (width, height), and the height counts fastest.
  sides = range(384, 2305, 384)
  expected = [[high, wide] for wide in sides for high in sides]
  assert pinpoints.in_pixels(384) == expected


def test_pairs_are_width_and_height_in_llava():
  assert read_pinpoints([[336, 672], [1008, 336]]).in_pixels(336) == [
    [672, 336],
    [336, 1008],
  ]
  assert read_pinpoints("(1x2),...,(1x3)").in_pixels(10) == [[20, 10], [30, 10]]


@given(
  st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000)), min_size=1),
  st.booleans(),
)
def test_a_list_may_be_written_as_a_text(pairs, brackets):
  text = str([list(pair) for pair in pairs] if brackets else pairs)
  expected = [[high, wide] for wide, high in ast.literal_eval(text)]
  assert read_pinpoints(text) == Pinpoints(expected, False)


@given(*4 * [st.integers(1, 8)])
def test_a_range_has_each_grid_between_its_ends_once(wide, high, more_wide, more_high):
  ends = f"({wide}x{high}),...,({more_wide}x{more_high})"
  pinpoints = read_pinpoints(ends)
  if more_wide < wide or more_high < high:
    assert pinpoints is None
    return
  pairs = [tuple(pair) for pair in pinpoints.pairs]
  assert pairs[0] == (high, wide) and pairs[-1] == (more_high, more_wide)
  assert len(set(pairs)) == len(pairs)
  assert len(pairs) == (more_wide - wide + 1) * (more_high - high + 1)
  listed = ",".join(f"({pair[1]}x{pair[0]})" for pair in pairs)
  assert read_pinpoints(listed) == pinpoints


MALFORMED = [
  None,
  True,
  3,
  "",
  [],
  {},
  [[32]],
  [[32, 32, 32]],
  [[32, "32"]],
  [[32, 3.2]],
  [[True, True]],
  [[0, 32]],
  ["32x32"],
  "(1x1)...(6x6)",
  "(1x1),...",
  "...,(6x6)",
  "(0x1),...,(6x6)",
  "(1x1),...,(-6x6)",
  "(6x6),...,(1x1)",
  "(1x1),...,(6x999)",
  "(1x1),...,(99999999x99999999)",
  "(1x2),(2x1),(2x2)",  # whose reading differs between LLaVA's versions
  "(1x1),...,(6x6),",
  "__import__('os').abort()",
  "[" * 100_000,
]


@pytest.mark.parametrize("value", MALFORMED, ids=lambda value: str(value)[:20])
def test_what_is_malformed_is_refused_in_one_message(tmp_path, value):
  assert read_pinpoints(value) is None
  loose.save_tower(tmp_path / "tower", "siglip")
  loose.save_original(tmp_path / "x", tmp_path / "tower", own=True)
  change = {
    "image_aspect_ratio": "anyres_max_9",
    "mm_patch_merge_type": "spatial_unpad",
    "image_grid_pinpoints": value,
  }
  bases.edit_json(tmp_path / "x/config.json", lambda config: config.update(change))
  shown = re.escape(repr(str(value)[:80]))
  message = f"image_grid_pinpoints is {shown}, only a list of pairs .*64 tiles"
  with pytest.raises(InputError, match=message):
    huggingface.read_config(tmp_path / "x")
