import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from mllm_selector_jax.models import rope, rotation
from mllm_selector_jax.models.huggingface.decoder_families.decoder_fields import (
  read_rope,
)
from mllm_selector_jax.types import InputError

SCALINGS = {
  "linear": {"factor": 4.0},
  "llama3": {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
  },
  "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
  "yarn with scales": {
    "factor": 3.0,
    "original_max_position_embeddings": 32,
    "mscale": 0.7,
    "mscale_all_dim": 1.3,
    "beta_fast": 8,
    "beta_slow": 2,
    "truncate": False,
  },
  "yarn with a given factor": {
    "factor": 3.0,
    "original_max_position_embeddings": 128,
    "attention_factor": 1.5,
  },
  "linear of some channels": {"factor": 4.0, "partial_rotary_factor": 0.25},
  "proportional": {"factor": 2.0},
  "yarn of some channels": {
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "partial_rotary_factor": 0.5,
  },
}


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_channels_beyond_the_share_are_paired_and_stand_still(share):
  waves = {"rope_type": "proportional", "rope_theta": 5e2, "factor": 2.0}
  config = transformers.LlamaConfig(
    hidden_size=24,
    num_attention_heads=2,
    rope_parameters={**waves, "partial_rotary_factor": share},
  )
  wanted, _ = ROPE_INIT_FUNCTIONS["proportional"](config, "cpu")
  found = read_rope(config).frequencies(12)
  np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6)
  assert found.astype(bool).tolist() == [True] * int(share * 6) + [False] * (
    6 - int(share * 6)
  )


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("theta, head_dim", [(10000.0, 16), (500.0, 64)])
def test_wavelengths_are_transformers(name, theta, head_dim):
  kind = name.split()[0]
  config = transformers.LlamaConfig(
    hidden_size=2 * head_dim,
    num_attention_heads=2,
    max_position_embeddings=256,
    rope_parameters={"rope_type": kind, "rope_theta": theta, **SCALINGS[name]},
  )
  wanted, scale = ROPE_INIT_FUNCTIONS[kind](config, "cpu")
  ours = read_rope(config)
  np.testing.assert_allclose(ours.frequencies(head_dim), wanted.numpy(), rtol=1e-6)
  assert ours.scale == pytest.approx(scale, rel=1e-12)
  assert not np.allclose(
    ours.frequencies(head_dim),
    rope.Rope(theta, share=ours.share).frequencies(head_dim),
  )


@pytest.mark.parametrize("given", [{}, {"attention_factor": 1.5}])
def test_longrope_of_short_rows_is_transformers(given):
  factors = [1.0, 1.25, 2.0, 3.5]
  config = transformers.Phi3Config(
    hidden_size=32,
    num_attention_heads=2,
    max_position_embeddings=512,
    original_max_position_embeddings=64,
    rope_parameters={
      "rope_type": "longrope",
      "rope_theta": 500.0,
      "short_factor": factors,
      "long_factor": [9.0] * 4,
      "partial_rotary_factor": 0.5,
      **given,
    },
    pad_token_id=0,
    eos_token_id=0,
  )
  init = ROPE_INIT_FUNCTIONS["longrope"]
  wanted, scale = init(config, "cpu", seq_len=64)
  ours = read_rope(config)
  np.testing.assert_allclose(ours.frequencies(16), wanted.numpy(), rtol=1e-6)
  assert ours.scale == pytest.approx(scale, rel=1e-12) and scale > 1
  longer, _ = init(config, "cpu", seq_len=65)
  assert not np.allclose(longer.numpy(), wanted.numpy())
  with pytest.raises(InputError, match="short_factor has 4 numbers, but 8 pairs"):
    ours.frequencies(32)


def test_dynamic_scaling_begins_beyond_the_longest_row():
  config = transformers.LlamaConfig(
    hidden_size=32,
    num_attention_heads=2,
    max_position_embeddings=256,
    rope_parameters={"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0},
  )
  ours = read_rope(config).frequencies(16)
  wanted, scale = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=256)
  np.testing.assert_allclose(ours, wanted.numpy(), rtol=1e-6)
  longer, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=300)
  assert scale == 1 and not np.allclose(ours, longer.numpy())


def test_a_factor_of_1_changes_nothing():
  plain = rope.Rope(500.0).frequencies(32)
  for kind in rope.KINDS:
    same = rope.Rope(500.0, kind, 1.0, original=64)
    np.testing.assert_allclose(same.frequencies(32), plain, rtol=1e-12)
    assert same.scale == 1.0


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"kind": "ntk"}, "'ntk' cannot be run"),
    ({"share": 0.0}, "at most 1"),
    ({"theta": 0.0}, "must be positive"),
    ({"kind": "linear", "factor": 0.0}, "must be positive"),
    ({"kind": "yarn"}, "original_max_position_embeddings"),
    ({"kind": "llama3", "original": 8, "low": 4.0}, "must be larger"),
  ],
)
def test_wrong_scalings_are_named(fields, message):
  with pytest.raises(InputError, match=message):
    rope.Rope(**fields)


def test_rotation_is_a_complex_product():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 5, 3, 8)).astype(np.float32)
  positions = rng.integers(0, 50, (2, 5))
  cos, sin = rotation.rotation_angles(jnp.asarray(positions), 8, rope.Rope(100.0))
  angles = positions[..., None] / 100.0 ** (np.arange(4) / 4)
  turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)[:, :, None]
  np.testing.assert_allclose(
    rotation.rotate(x, cos, sin),
    np.concatenate([turned.real, turned.imag], -1),
    atol=1e-5,
  )


def test_rotation_of_neighbours_is_a_complex_product():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 5, 3, 12)).astype(np.float32)
  positions = rng.integers(0, 50, (2, 5))
  own = rope.Rope(100.0, share=0.7, neighbours=True)
  cos, sin = rotation.rotation_angles(jnp.asarray(positions), 12, own)
  angles = positions[..., None] / 100.0 ** (np.arange(4) / 4)
  turned = (x[..., :8:2] + 1j * x[..., 1:8:2]) * np.exp(1j * angles)[:, :, None]
  found = np.asarray(rotation.rotate(x, cos, sin, own.neighbours))
  np.testing.assert_allclose(found[..., :8:2], turned.real, atol=1e-5)
  np.testing.assert_allclose(found[..., 1:8:2], turned.imag, atol=1e-5)
  np.testing.assert_array_equal(found[..., 8:], x[..., 8:])


def test_channels_that_turn_come_in_pairs():
  assert rope.Rope(share=0.5).count_turned(12) == 6
  with pytest.raises(InputError, match="are 3, which must be even"):
    rope.Rope(share=0.25).count_turned(12)


def test_only_the_distance_of_two_positions_matters():
  rng = np.random.default_rng(1)
  query, key = rng.normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

  def product(first, second):
    angles = [
      rotation.rotation_angles(jnp.array([[p]]), 8, rope.Rope())
      for p in (first, second)
    ]
    turned = (
      rotation.rotate(x, *angle) for x, angle in zip((query, key), angles, strict=True)
    )
    return float(jnp.sum(next(turned) * next(turned)))

  assert product(3, 1) == pytest.approx(product(40, 38), abs=1e-5)
  assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-3)


def test_position_0_is_not_turned():
  x = np.random.default_rng(2).normal(size=(1, 1, 2, 4)).astype(np.float32)
  cos, sin = rotation.rotation_angles(jnp.zeros((1, 1), int), 4, rope.Rope())
  np.testing.assert_array_equal(rotation.rotate(x, cos, sin), x)
