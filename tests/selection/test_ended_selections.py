"""Selections that are ended in the midst of a loop go on, and select the same rows."""

import contextlib
import dataclasses
import functools

import numpy as np
import pytest

from mllm_selector_jax.pipeline import kept_work
from mllm_selector_jax.selection import covering, overseer, strategies
from mllm_selector_jax.selection.options import SelectOptions
from mllm_selector_jax.selection.pairwise import farthest, neighbours, row_tiles
from mllm_selector_jax.selection.rivals import facility_location, greedy
from tests.selection.pools import make_columns, make_pool

ROWS = 300
LIMITS = {"most": {"image": 2, "topic": "50%"}, "least": {"topic": 3}}
# The options of each selection, and the loops that it keeps.
CASES = {
  "k_center": ({"strategy": "k_center"}, {"picks"}),
  "k_center, limits": ({"strategy": "k_center", **LIMITS}, {"picks"}),
  "facility_location": (
    {"strategy": "facility_location"},
    {"centres", "lists", "neighbours", "covering"},
  ),
  "facility_location, limits": (
    {"strategy": "facility_location", **LIMITS},
    {"centres", "lists", "neighbours", "covering"},
  ),
  "d2": ({"strategy": "d2"}, {"centres", "lists", "neighbours"}),
  "cover": (
    {"within": "cover"},
    {"centres", "lists", "neighbours", "covering", "covered"},
  ),
  "semdedup": ({"strategy": "semdedup"}, {"novelty"}),
  "coincide": ({"strategy": "coincide"}, {"sums"}),
  "deita": ({"strategy": "deita"}, {"deita"}),
  "visnec": ({"strategy": "visnec"}, {"visnec"}),
  "duplicates": ({"duplicates": 0.9}, {"duplicates"}),
}


class Ended(BaseException):
  """What ends a selection in the midst, as Ctrl-C does."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  """Many small steps, all of which are kept."""
  monkeypatch.setattr(kept_work, "EVERY", 0.0)
  monkeypatch.setattr(greedy, "SHOWN", 8)
  monkeypatch.setattr(row_tiles, "SIZE", 16)
  monkeypatch.setattr(row_tiles, "HELD_BYTES", 1)  # a panel of a tile for each device
  for module, name, settings in (
    (farthest, "traverse", {"batch_rows": 40, "batch_picks": 8}),
    (neighbours, "find_neighbours", {"exact_rows": 40, "probes": 4}),
    (facility_location, "cover_greedily", {"all_pairs_rows": 40}),
    (covering, "cover_groups", {"all_pairs_rows": 40}),
  ):
    function = functools.partial(getattr(module, name), **settings)
    monkeypatch.setattr(module, name, function)


@functools.cache
def make_scores():
  forced = np.arange(ROWS) % 97 == 5
  columns = make_columns(ROWS)
  return make_pool(ROWS, forced_in=forced, columns=columns)


def select(options, folder=None, end_at=None, seed=0):
  """Selects rows; ends at an update of the progress. Gives what was shown as well."""
  shown, fail = [], []
  scores, groups = make_scores()

  @contextlib.contextmanager
  def watch(title, unit="row"):
    def update(done, total):
      shown.append((title, done, total))
      if len(shown) == end_at:
        raise Ended

    yield update

  keep = (
    kept_work.KeptWork(folder, fail.append).keep if folder else overseer.NOBODY.keep
  )
  scores = dataclasses.replace(scores, overseer=overseer.Overseer(watch, keep))
  try:
    chosen = strategies.select(scores, groups, 90, seed, SelectOptions(**options))
  except Ended:
    chosen = None
  assert not fail
  return chosen, shown


def check_same(found, wanted):
  for name in ("kept", "rank", "gain", "reason"):
    np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), name)
  assert found.threshold == wanted.threshold or np.isnan(wanted.threshold)


@pytest.mark.parametrize("name", CASES)
def test_an_ended_selection_goes_on_and_is_the_same(name, tmp_path):
  options, loops = CASES[name]
  wanted, shown = select(options)
  moments = 3, 2 * len(shown) // 3, len(shown)
  assert moments[0] < moments[1] < moments[2]
  for end_at in moments:
    folder = tmp_path / str(end_at)
    ended, _ = select(options, folder, end_at)
    assert ended is None
    found, rest = select(options, folder)
    check_same(found, wanted)
    assert len(rest) < len(shown) or end_at == 3
    assert {path.name.rpartition("-")[0] for path in folder.iterdir()} == loops
  # One that is ended again and again comes to its end as well.
  for _ in range(len(shown)):
    found, _ = select(options, tmp_path / "often", moments[1])
    if found is not None:
      break
  check_same(found, wanted)


@pytest.mark.parametrize("name", ["k_center", "facility_location"])
def test_what_was_made_from_anything_else_is_not_read(name, tmp_path):
  options, _ = CASES[name]
  wanted, shown = select(options, seed=1)
  select(options, tmp_path)
  found, again = select(options, tmp_path, seed=1)
  check_same(found, wanted)
  assert len(again) == len(shown)


@pytest.mark.parametrize("name", ["k_center", "facility_location", "deita"])
def test_damaged_parts_and_those_behind_them_are_made_again(name, tmp_path):
  options, _ = CASES[name]
  wanted, _ = select(options, tmp_path)
  for path in tmp_path.glob("*/*.npz"):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found, _ = select(options, tmp_path)
    check_same(found, wanted)
    assert path.read_bytes() != data
