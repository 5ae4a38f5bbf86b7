"""Names of slices, and what is said about wrong ones."""

import importlib.util
import math
import re

import jax
import pytest

from mllm_selector_jax.planning import device_kinds, topology
from mllm_selector_jax.training import peaks
from mllm_selector_jax.types import InputError


@pytest.mark.parametrize(
  ("generation", "count", "shape"),
  [
    ("v5p", 8, "2x2x1"),  # eight TensorCores are four chips
    ("v5p", 128, "4x4x4"),
    ("v5e", 4, "2x2"),
    ("v5litepod", 8, "2x4"),
    ("v6e", 256, "16x16"),
    ("v6e", 1, "1x1"),
    ("v4", 8, "2x2x1"),
  ],
)
def test_a_slice_s_name_gives_its_shape(generation, count, shape):
  assert topology.find_shape("", generation, count) == shape


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("v5p-7", "no slice; there are v5p-8, v5p-16"),
    ("v5e-12", "no slice; there are v5e-1, v5e-4, v5e-8"),
    ("v9-8", "not known. Give a TPU slice, such as v5p-8"),
    ("h100", "not known"),
    ("a100-8", "there are rtx4090, l40s, a100-40gb, a100-80gb, h100"),
    ("h100-0", "0 GPUs"),
    ("h100-9", "has 8. Set XLA_FLAGS=--xla_force_host_platform_device_count=9"),
  ],
)
def test_a_wrong_name_says_what_there_is(name, words, monkeypatch):
  jax.devices()  # a process that has its devices already gets no more of them
  monkeypatch.setattr(topology, "_has_gpu_compiler", lambda: False)
  with pytest.raises(InputError, match=re.escape(words)):
    topology.describe(name)


def test_without_the_compiler_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(InputError, match=r"pip install 'mllm_selector_jax\[tpu\]'"):
    topology.describe("v5e-8")


def test_gpus_are_stood_for_by_cpu_devices_without_their_compiler(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  found = topology.describe("h200-4")
  assert found.devices == tuple(jax.devices()[:4]) and not found.exact
  assert (found.memory, found.peak) == (0.9 * 141e9, 989e12)


@pytest.mark.parametrize(
  ("name", "generation", "size"),
  [
    ("a100-40gb-8", "a100-40gb", "8"),
    ("a100-80gb-16", "a100-80gb", "16"),
    ("rtx4090-1", "rtx4090", "1"),
    ("l40s-2", "l40s", "2"),
    ("v6e:4x8", "v6e", "4x8"),
  ],
)
def test_a_name_is_a_kind_and_a_size(name, generation, size):
  assert topology.parse(name) == (generation, size)


def test_every_kind_has_a_peak_and_names_that_can_be_given():
  for generation, kind in (device_kinds.TPUS | device_kinds.GPUS).items():
    assert peaks.PEAKS[kind.kind] > 1e14
    sizes = device_kinds.list_sizes(generation)
    assert [count for _, count in sizes] == sorted(count for _, count in sizes)
    for name, count in sizes:
      parsed, size = topology.parse(name)
      assert parsed == generation
      assert math.prod(int(side) for side in size.split("x")) == count


def test_devices_are_ordered_by_what_an_hour_of_all_costs():
  names = ["h100-1", "v5e-8", "rtx4090-2", "v5p-8"]
  # 989, 8 x 197, 2 x 165.2 and 4 x 459 TFLOP/s.
  assert topology.rank(names, {}) == ["rtx4090-2", "h100-1", "v5e-8", "v5p-8"]
  prices = {"h100": 2.5, "v5e": 0.3, "v5p": 4.0}  # 2.5, 2.4, none, 16
  assert topology.rank(names, prices) == ["v5e-8", "h100-1", "v5p-8", "rtx4090-2"]
  assert topology.rank(names, {"": 1.0}) == ["h100-1", "rtx4090-2", "v5p-8", "v5e-8"]


@pytest.mark.parametrize(("count", "hosts"), [(1, 1), (8, 1), (16, 2)])
def test_gpus_are_described_for_their_own_compiler(count, hosts):
  if not topology._has_gpu_compiler():
    pytest.skip(
      "jax's CUDA plug-in, the GPU compiler, is not installed: the extra 'cuda12'"
    )
  found = topology.describe(f"h100-{count}")
  assert found.exact and len(found.devices) == count
  assert {device.device_kind for device in found.devices} == {found.kind}
  assert len({device.process_index for device in found.devices}) == hosts
