"""FLOPs of a projector that ends with a gated MLP, counted by hand."""

import dataclasses

import pytest

from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.training import work
from tests.models import packed

# Four patches of 16 channels become one feature of 16; the MLP is 40 wide.
CONFIG = packed.GATED
PLAIN = dataclasses.replace(CONFIG, projector_gated=False, projector_width=64)
FIRST, SECOND, GATED = 64 * 16, 16 * 16, 3 * 16 * 40


def find_tile(config, trained):
  return work.make_rates(config, mllm.abstract(config), trained).tile


@pytest.mark.parametrize(
  ("trained", "times"),
  [(None, 1), (("projector", "decoder"), 2), (("vision", "projector", "decoder"), 3)],
)
def test_its_weights_are_counted(trained, times):
  # A tile has one feature; the plain one has two layers of 64 x 64 and 64 x 16.
  found = find_tile(CONFIG, trained) - find_tile(PLAIN, trained)
  plain = 64 * 64 + 64 * 16
  assert found == times * 2 * (FIRST + SECOND + GATED - plain)


@pytest.mark.parametrize("seen", [False, True])
def test_its_adapters_are_counted(seen):
  modules = ("projector", "tower") if seen else ("projector",)
  lora = LoraConfig(2, 4.0, modules)
  tower = LoraConfig(2, 4.0, ("tower",)) if seen else None
  adapted = dataclasses.replace(CONFIG, lora=lora)
  base = dataclasses.replace(CONFIG, lora=tower)
  found = find_tile(adapted, ("adapter",)) - find_tile(base, ("adapter",))
  matrices = 2 * (16 + 16) + 3 * 2 * (16 + 40)
  products = 3 * matrices
  if not seen:
    # The first adapted layer's input needs no gradient; those of later ones do.
    products += GATED - 2 * 16
  assert found == 2 * products
