"""The explorer's parts: the sample, projection, typical words, thumbnails, JSON."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllm_selector_jax.pages import explored_rows, explorer_page, projection
from mllm_selector_jax.pages.explored_rows import STATES
from mllm_selector_jax.pages.typical_words import find_typical, read_words


def test_a_small_pool_is_shown_whole_and_kept_rows_come_first():
  states = np.random.default_rng(0).integers(0, len(STATES), 500)
  rows = explored_rows.choose_rows(states)
  assert sorted(rows.tolist()) == list(range(500))
  is_kept = states[rows] <= STATES.index("kept, but doubtful")
  assert (np.diff(is_kept.astype(int)) <= 0).all()


@pytest.mark.parametrize(
  ("kept", "suspect", "wanted"),
  [
    (12_000, 3_000, (2_500, 1_250, 1_250)),
    (100, 40, (100, 40, 4_860)),
    (29_900, 0, (4_900, 0, 100)),  # nearly all rows were kept
  ],
)
def test_of_a_large_pool_a_fixed_sample_of_each_kind_is_shown(kept, suspect, wanted):
  states = np.full(30_000, STATES.index("not kept"))
  states[:kept] = 0
  states[kept : kept + suspect] = STATES.index("suspect")
  states = np.random.default_rng(1).permutation(states)
  rows = explored_rows.choose_rows(states)
  assert len(np.unique(rows)) == len(rows) == explored_rows.SAMPLED
  counts = [np.sum(states[rows] == STATES.index(n)) for n in ("kept", "suspect")]
  assert (*counts, len(rows) - sum(counts)) == wanted
  np.testing.assert_array_equal(rows, explored_rows.choose_rows(states))
  # A random sample, not the first rows.
  assert abs(np.mean(rows) / 30_000 - 0.5) < 0.02


def test_every_state_has_thumbnails_before_any_has_all():
  states = np.array([3] * 90 + [2] * 5 + [0] * 5)
  first = explored_rows.order_pictures(np.arange(100), states)
  assert sorted(first.tolist()) == list(range(100))
  assert sorted(states[first[:15]].tolist()) == [0] * 5 + [2] * 5 + [3] * 5


@pytest.mark.parametrize("shape", [(300, 40), (6, 40), (300, 3), (3, 2)])
def test_projection_equals_the_principal_components(shape):
  rng = np.random.default_rng(3)
  scale = np.linspace(3, 0.5, shape[1])
  vectors = (rng.normal(size=shape) * scale + 1).astype(np.float32)
  found = projection.project(vectors)
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  centred = (unit - unit.mean(0)).astype(np.float64)
  left, values, _ = np.linalg.svd(centred, full_matrices=False)
  number = min(projection.COMPONENTS, *shape)
  assert found.places.shape == (shape[0], number)
  np.testing.assert_allclose(
    found.shares, values[:number] ** 2 / (values**2).sum(), atol=1e-5
  )
  for place in range(2):
    cosine = found.places[:, place] @ left[:, place]
    assert abs(cosine) / np.linalg.norm(found.places[:, place]) > 1 - 1e-4
    assert found.places[:, place].max() == pytest.approx(1)
    assert np.abs(found.places[:, place]).max() == pytest.approx(1)


def test_what_has_no_two_components_has_no_projection():
  assert projection.project(np.ones((50, 8), np.float32)) is None
  assert projection.project(np.zeros((0, 8), np.float32)) is None
  assert projection.project(np.ones((50, 0), np.float32)) is None


def test_typical_words_are_those_of_a_group_and_not_the_common_ones():
  texts = ["what is the colour of the sky"] * 40 + ["what is the sum of the bars"] * 60
  texts += ["что на картинке 12 34"] * 5
  groups = np.array([4] * 40 + [2] * 60 + [7] * 5)
  words = find_typical(texts, groups)
  assert sorted(words[4][:2]) == ["colour", "sky"]
  assert sorted(words[2][:2]) == ["bars", "sum"]
  assert sorted(words[7]) == ["картинке", "на", "что"]
  assert find_typical(["a word"] * 9, np.full(9, 3)) == {3: ["word"]}
  assert find_typical(["a word"], np.array([-1])) == {}


def test_words_are_letters_of_any_script_and_not_too_long():
  assert read_words("Rot, rot_und x1 2024 日本 " + "a" * 30) == {"rot", "und", "日本"}


@given(st.recursive(st.text() | st.integers(), st.lists, max_leaves=9))
def test_encoded_data_is_json_that_ends_no_script(value):
  text = explorer_page.encode({"value": [value, "</script><!--<script>\u2028"]})
  assert not set("<>&\u2028\u2029") & set(text)
  assert json.loads(text)["value"][0] == value
