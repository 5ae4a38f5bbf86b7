"""Time, money and disk, by hand."""

import pytest

from mllm_selector_jax.configs import default
from mllm_selector_jax.planning import disk, estimate, hours, jobs
from mllm_selector_jax.types import InputError
from tests.training import toy


def test_executed_flops_take_a_range_and_model_flops_a_measured_share():
  assumed = hours.Rate(100e12)
  # 8e18 executed FLOPs at 40e12 and at 25e12 a second.
  assert assumed.seconds(3e18, 8e18) == (200_000, 320_000)
  measured = hours.Rate(100e12, 0.5)
  assert measured.seconds(3e18, 8e18) == (60_000, 60_000)
  assert "0.25 to 0.4" in assumed.describe() and "plan.mfu=0.5" in measured.describe()


def test_durations_read_as_people_say_them():
  assert [hours.duration(s) for s in (0.1, 89, 600, 7200)] == [
    "1 s",
    "89 s",
    "10 min",
    "2.0 h",
  ]
  assert hours.duration_range(7200, 11520) == "2.0 to 3.2 h"
  assert hours.duration_range(80, 128) == "80 s to 2 min"
  assert hours.duration_range(60, 60) == "60 s"


def test_prices_are_of_all_devices_or_of_a_kind():
  assert hours.read_prices(None) == {}
  assert hours.read_prices(2.5) == {"": 2.5}
  prices = hours.read_prices("h100=2.5, v5e=1.2")
  assert prices == {"h100": 2.5, "v5e": 1.2}
  assert hours.find_price(prices, "v5e") == 1.2
  assert hours.find_price(prices, "h200") is None
  assert hours.find_price({"": 3.0}, "h200") == 3.0
  # 8 devices at 2.5 for 2 hours, and for 3.2.
  assert hours.cost_range(2.5, 8, 7200, 11520) == "40.00 to 64.00"
  with pytest.raises(InputError, match=r"'v9=1'.*there are v4, v5e"):
    hours.read_prices("h100=2,v9=1")


JOBS = [jobs.Job("seed", "9 rows", 1e18), jobs.Job("tune", "5 rows", 2e18)]


def test_a_seed_executes_what_its_step_does():
  found = jobs.with_factors(JOBS, {"tune": 2.0, "score": 1.2})
  assert [job.executed for job in found] == [2e18, 4e18]
  found = jobs.with_factors(JOBS, {"tune": 2.0, "seed": 3.0})
  assert [job.executed for job in found] == [3e18, 4e18]


def test_lines_say_model_and_executed_flops_time_and_money():
  listed = jobs.with_factors(JOBS, {"tune": 2.0})
  head, seed, _, whole = jobs.format_jobs(listed, hours.Rate(1e15), 4, 2.0)
  assert head.split() == "stage model executed FLOPs, and time, and cost".split()
  # 2e18 executed FLOPs at 4e14 and 2.5e14 a second; 4 devices at 2 an hour.
  assert "1e+18    2e+18  about 83 min to 2.2 h, 11.11 to 17.78" in seed
  assert "3e+18    6e+18  about 4.2 to 6.7 h, 33.33 to 53.33" in whole


def test_no_hours_are_told_of_a_machine_for_which_no_one_waits():
  lines = jobs.format_jobs(JOBS, None)
  assert all("not on this machine" in line for line in lines[1:])
  assert not any("about" in line for line in lines)


def test_the_disk_holds_these_items():
  section = default.get_config().tune
  section.keep, section.keep_best = 2, 1
  sections = {"tune": (section, 2)}
  items = disk.list_items(toy.CONFIG, sections, 1000, 200, 5e5, 3e7)
  found = {item.name: item.bytes for item in items}
  parameters = sum(estimate.parameter_counts(toy.CONFIG).values())
  trained = estimate.count_trainable(toy.CONFIG, section)
  assert found == {
    "pool table": 1000 * 250,
    "pool copy": 5e5 + 3e7,
    "scores": 1000 * 200,
    "embeddings": 1000 * 4 * toy.CONFIG.decoder.width,
    "tune: models": 2 * 4 * parameters,
    "tune: checkpoints": (2 * 3 + 1) * 12 * trained,
    "exports": 200 * 500,
  }
  assert disk.total(items) == sum(found.values()) - found["pool copy"]
  section.first_moment = "bfloat16"
  items = disk.list_items(toy.CONFIG, sections, 1000, 200, 5e5, 3e7, scored=False)
  found = {item.name: item.bytes for item in items}
  assert "scores" not in found and found["tune: checkpoints"] == 7 * 10 * trained
  said = disk.format_items(items, "/work", 1000)
  assert "Warning: that is not enough" in said[-1] and "under /work" in said[0]
