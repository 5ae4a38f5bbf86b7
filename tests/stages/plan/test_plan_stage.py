"""What the command says, from a checked pool."""

import dataclasses

import numpy as np
import pytest

from mllm_selector_jax.data.packing.tree_packing import make_plan
from mllm_selector_jax.inputs import base_model as bases
from mllm_selector_jax.models import huggingface, mllm
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.pipeline.flops import make_row_rates, row_flops
from mllm_selector_jax.planning import disk, estimate, jobs, topology
from mllm_selector_jax.settings import check_settings
from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.training import work
from mllm_selector_jax.types import InputError
from tests import small_run
from tests.models import tiny
from tests.scoring.pools import make_pool
from tests.training import toy


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  return tiny.make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def workdir(base, tmp_path_factory):
  folder = tmp_path_factory.mktemp("run") / "work"
  with small_run.open_run(folder, base) as current:
    COMMANDS["check"](current)
  return folder


def planned(workdir, base, **overrides):
  """The jobs by name, the disk's line, and what the command said."""
  log = workdir / "log.txt"
  before = len(log.read_text())
  with small_run.open_run(workdir, base, **overrides) as current:
    COMMANDS["plan"](current)
    config = huggingface.read_config(base)
    listed = jobs.list_jobs(current, config, bases.open_pool(current))
    sections = {"tune": (current.cfg.tune, 1)}
    items = disk.list_items(config, sections, 100, 20, 0.0, 0.0)
  sizes = {item.name: item.bytes for item in items}
  return {job.name: job.flops for job in listed}, sizes, log.read_text()[before:]


def test_a_lora_tune_is_not_counted_as_a_full_one(workdir, base):
  whole, full, _ = planned(workdir, base)
  lora, less, said = planned(workdir, base, **{"tune.lora.rank": 1})
  assert lora["tune"] < 0.85 * whole["tune"] and lora["seed"] == whole["seed"]
  assert lora["score"] == whole["score"] and "tune" in said
  config = huggingface.read_config(base)
  sizes = estimate.parameter_counts(config)
  adapted = dataclasses.replace(config, lora=LoraConfig(1, 1.0))
  adapter = estimate.parameter_counts(adapted)["adapter"]
  # An adapter and its moments in both checkpoints, in place of the decoder and its.
  saved = 2 * 12 * (sizes["decoder"] - adapter)
  assert full["tune: checkpoints"] - less["tune: checkpoints"] == saved
  # The adapter's folder holds the tuned projector, too.
  added = 4 * (adapter + sizes["projector"])
  assert less["tune: models"] - full["tune: models"] == added


def test_a_topology_is_compiled_for_and_told_as_an_estimate_of_gpus(
  workdir, base, monkeypatch
):
  monkeypatch.setattr(topology, "_has_gpu_compiler", lambda: False)
  _, _, said = planned(
    workdir,
    base,
    **{"plan.topology": "h100-2", "plan.mfu": 0.5, "model.dtype": "float32"},
  )
  for words in (
    "h100-2: 2 x NVIDIA H100",
    "ESTIMATE",
    "tune: an estimate: fits",
    "score: an estimate: fits",
    "FLOPs per step",
    "all-reduce",
    "plan.mfu=0.5 of the peak",
    "It fits h100-2 (tune ",
    "XLA_PYTHON_CLIENT_MEM_FRACTION=0.9 mllm-selector",
  ):
    assert words in said
  assert "seed: the same step as for tune" in said


def test_scoring_counts_a_shared_trunk_once():
  pool = make_pool(64).table
  rows = np.arange(64)
  rates = work.make_rates(toy.CONFIG, mllm.abstract(toy.CONFIG), None)
  prefixes = pool.prefixes.take(rows, 1)
  shared = make_plan(pool.tokens, 128, prefixes, pool.tiles, pool.supervised)
  total = 0.0
  for number in range(len(shared)):
    for trunk, items in shared.row(number):
      total += rates.flops(trunk, trunk * (trunk + 1) / 2, 0, 0)
      total += rates.flops(0, 0, 0, int(pool.has_image[items[0]]))
      for item in items:
        places = np.arange(trunk, pool.tokens[item])
        total += rates.flops(len(places), (places + 1).sum(), pool.supervised[item], 0)
  assert (shared.trunks > 0).any()
  found = estimate.score_flops(toy.CONFIG, pool, rows, shared)
  np.testing.assert_allclose(found, total, rtol=1e-12)
  alone = estimate.score_flops(toy.CONFIG, pool, rows, make_plan(pool.tokens, 128))
  each = row_flops(toy.CONFIG, make_row_rates(toy.CONFIG, None), pool)
  np.testing.assert_allclose(alone, each.sum(), rtol=1e-12)


@pytest.mark.parametrize("mfu", [0.0, 1.5])
def test_a_share_of_the_peak_that_cannot_be_is_refused(workdir, base, mfu):
  with small_run.open_run(workdir, base, **{"plan.mfu": mfu}) as current:
    with pytest.raises(InputError, match=r"plan\.mfu"):
      check_settings(current, "plan")
