"""FLOPs by hand, and beside what the compiler counts."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.decoder_config import LinearConfig
from mllm_selector_jax.models.lora_options import MODULES, LoraConfig
from mllm_selector_jax.training import peaks, train_step, work
from tests.models import packed
from tests.training import toy

# Wide enough that products with weights are nearly all.
WIDE = dataclasses.replace(
  toy.CONFIG,
  vision=dataclasses.replace(toy.CONFIG.vision, width=128, mlp=256),
  decoder=dataclasses.replace(toy.CONFIG.decoder, width=256, mlp=512, head_dim=64),
)


# A tower that is most of the model.
SEEING = dataclasses.replace(
  WIDE, vision=dataclasses.replace(WIDE.vision, width=512, mlp=2048, layers=4)
)

# As VipLLaVA has it.
SEVERAL = dataclasses.replace(
  WIDE, feature_layer=(-1, 1, 0), projector_norm="layer_norm"
)


# With linear attention in most layers, whose chunks cost little beside the weights.
MOSTLY_LINEAR = dataclasses.replace(
  WIDE,
  decoder=dataclasses.replace(
    WIDE.decoder,
    layers=4,
    linear=LinearConfig(key_heads=2, value_heads=4, key_dim=32, value_dim=32, taps=4),
    linear_layers=(0, 1, 2),
    output_gate=True,
  ),
)

EVERY = tuple(MODULES)


def make_case(rank, modules, config):
  params = mllm.init(config, 0)
  if rank:
    return mllm.add_adapter(config, params, LoraConfig(rank, 1.0, modules), 0)
  return config, params


@pytest.mark.parametrize(
  ("trainable", "rank", "modules", "base"),
  [
    ("projector", 0, (), WIDE),
    ("decoder", 0, (), WIDE),
    ("all", 0, (), WIDE),
    ("decoder", 64, ("decoder",), WIDE),
    ("projector", 64, ("projector",), WIDE),
    ("decoder", 64, ("decoder", "projector"), WIDE),
    ("all", 64, ("decoder", "tower"), WIDE),
    ("all", 64, EVERY, WIDE),
    ("all", 64, EVERY, SEEING),
    ("decoder", 0, (), MOSTLY_LINEAR),
    ("decoder", 64, ("decoder",), MOSTLY_LINEAR),
    ("projector", 0, (), SEVERAL),
    ("all", 0, (), SEVERAL),
  ],
)
def test_a_step_costs_what_the_compiler_counts(trainable, rank, modules, base):
  config, params = make_case(rank, modules, base)
  trained, frozen = train_step.split_params(params, trainable)
  # One sample with an image fills each row, so that little is masked or padded.
  batch = full_batch()

  def loss(trained, frozen):
    return train_step.batch_loss(config, {**frozen, **trained}, batch)

  lowered = jax.jit(jax.grad(loss)).lower(trained, frozen)
  counted = lowered.compile().cost_analysis()["flops"]
  ours = work.make_count(config, params, trained.keys())(batch)
  assert ours.tokens == ours.places
  np.testing.assert_allclose(ours.flops, counted, rtol=0.1)


def test_one_more_layer_s_features_widen_the_projector_alone():
  both = [dataclasses.replace(WIDE, feature_layer=layer) for layer in (-1, (-1, 1))]
  one, two = (work.make_rates(c, mllm.abstract(c), ("projector",)) for c in both)
  # Forward and the weights' gradient; a frozen tower needs none.
  more = 2 * 2 * WIDE.vision.width * WIDE.decoder.width * WIDE.patches
  assert two.tile - one.tile == more
  assert one._replace(tile=0) == two._replace(tile=0)


def test_states_cost_the_same_at_each_token():
  linear = dataclasses.replace(
    packed.LINEAR, decoder=dataclasses.replace(packed.LINEAR.decoder, tied=True)
  )
  rates = work.make_rates(linear, mllm.abstract(linear), None)
  # Two of eight layers see keys.
  assert rates.key == 4 * 2 * linear.decoder.heads * linear.decoder.head_dim
  longer = dataclasses.replace(linear.decoder.linear, taps=5)
  more = dataclasses.replace(
    linear, decoder=dataclasses.replace(linear.decoder, linear=longer)
  )
  more = work.make_rates(more, mllm.abstract(more), None)
  channels = 2 * 2 * 16 + 4 * 12
  assert more.token - rates.token == 6 * 2 * channels
  assert more._replace(token=0) == rates._replace(token=0)
  weights = work._count_weights(mllm.abstract(linear)["decoder"])
  states = 6 * (3 * 2 * 16 * 12 * 4 + 2 * 4 * channels)
  assert rates.token == 2 * weights + states


@pytest.mark.parametrize("layers", [2, 6])  # unrolled, and not
def test_experts_cost_as_much_as_an_mlp_as_wide_as_a_token_s_and_the_router(layers):
  def rate(**fields):
    decoder = dataclasses.replace(WIDE.decoder, layers=layers, **fields)
    config = dataclasses.replace(WIDE, decoder=decoder)
    return work.make_rates(config, mllm.abstract(config), ("decoder",))

  experts = rate(mlp=40, experts=16, experts_per_token=3)
  wide = rate(mlp=120)
  # Forward, and the gradients of inputs and weights.
  router = 3 * 2 * WIDE.decoder.width * 16
  few = layers == 2  # the last layer's MLP runs for supervised tokens alone
  assert experts.token - wide.token == router * (layers - few)
  assert experts.target - wide.target == router * few
  assert experts._replace(token=0, target=0) == wide._replace(token=0, target=0)


def full_batch():
  samples = toy.random_samples(64, text_share=0.0)
  length = len(samples[0][0].tokens)
  alike = [i for i, (sample, _) in samples.items() if len(sample.tokens) == length]
  return toy.Batches(samples, [[[item] for item in alike[:4]]], length)[0][0]


def test_padding_costs_nothing_and_each_token_what_it_sees():
  count = work.make_count(toy.CONFIG, mllm.abstract(toy.CONFIG), ("projector",))
  short, long = (toy.make_batches(row_length=n)[0][0] for n in (32, 64))
  assert count(short).flops == count(long).flops
  assert count(short).tokens == count(long).tokens
  assert count(short).places < count(long).places


def test_peaks_are_known_by_the_device_s_name_and_no_cpu_has_one():
  def peak(name):
    return peaks.peak_flops(SimpleNamespace(device_kind=name))

  assert peak("TPU v5 lite") == 197e12 and peak("NVIDIA H200") == 989e12
  assert peak("TPU v9") is None and peaks.peak_flops(jax.devices()[0]) is None
