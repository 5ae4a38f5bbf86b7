import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from transformers.models.glm4v import modeling_glm4v
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from transformers.models.qwen3_5 import modeling_qwen3_5
from transformers.models.qwen3_vl import modeling_qwen3_vl

from mllm_selector_jax.models import rotation
from mllm_selector_jax.models.rope import Rope
from mllm_selector_jax.types import InputError

HEAD, THETA = 32, 5000.0
CASES = [
  (modeling_qwen2_5_vl.Qwen2_5_VLRotaryEmbedding, "qwen2_5_vl_text", (4, 6, 6), False),
  (modeling_qwen2_5_vl.Qwen2_5_VLRotaryEmbedding, "qwen2_5_vl_text", (2, 3, 11), False),
  (modeling_qwen3_vl.Qwen3VLTextRotaryEmbedding, "qwen3_vl_text", (6, 5, 5), True),
  (modeling_qwen3_vl.Qwen3VLTextRotaryEmbedding, "qwen3_vl_text", (8, 4, 4), True),
  (modeling_qwen3_5.Qwen3_5TextRotaryEmbedding, "qwen3_5_text", (3, 3, 2), True),
  (modeling_qwen3_5.Qwen3_5TextRotaryEmbedding, "qwen3_5_text", (4, 2, 2), True),
]


def turn(torch_rotary, x, axes, config):
  """Transformers' rotation of the heads [L H d] at positions [L 3]."""
  import torch

  positions = torch.from_numpy(axes.T.copy())[:, None]
  values = torch.from_numpy(x)[None].transpose(1, 2)
  cos, sin = torch_rotary(config)(values, positions)
  turned, _ = modeling_qwen3_5.apply_rotary_pos_emb(values, values, cos, sin)
  return turned[0].transpose(0, 1).numpy()


@pytest.mark.parametrize("torch_rotary, kind, sections, interleaved", CASES)
def test_channels_turn_as_in_transformers(torch_rotary, kind, sections, interleaved):
  share = 0.5 if kind == "qwen3_5_text" else 1.0
  config = transformers.AutoConfig.for_model(
    kind,
    hidden_size=2 * HEAD,
    num_attention_heads=2,
    head_dim=HEAD,
    rope_parameters={
      "rope_type": "default",
      "rope_theta": THETA,
      "mrope_section": list(sections),
      "partial_rotary_factor": share,
    },
  )
  rng = np.random.default_rng(0)
  x = rng.normal(size=(9, 2, HEAD)).astype(np.float32)
  axes = rng.integers(0, 50, (9, 3))
  wanted = turn(torch_rotary, x, axes, config)
  rope = Rope(THETA, sections=sections, interleaved=interleaved, share=share)
  cos, sin = rotation.rotation_angles(jnp.asarray(axes[None]), HEAD, rope)
  turned = rotation.rotate(jnp.asarray(x[None]), cos, sin)[0]
  np.testing.assert_allclose(np.asarray(turned), wanted, rtol=2e-5, atol=2e-5)


def test_neighbours_among_the_first_channels_turn_as_in_transformers():
  import torch

  config = transformers.AutoConfig.for_model(
    "glm4v_text",
    hidden_size=2 * HEAD,
    num_attention_heads=2,
    rope_parameters={
      "rope_type": "default",
      "rope_theta": THETA,
      "mrope_section": [2, 3, 3],
      "partial_rotary_factor": 0.5,
    },
  )
  rng = np.random.default_rng(0)
  x = rng.normal(size=(9, 2, HEAD)).astype(np.float32)
  axes = rng.integers(0, 50, (9, 3))
  values = torch.from_numpy(x)[None].transpose(1, 2)
  positions = torch.from_numpy(axes.T.copy())[:, None]
  angles = modeling_glm4v.Glm4vTextRotaryEmbedding(config)(values, positions)
  wanted, _ = modeling_glm4v.apply_rotary_pos_emb(values, values, *angles)
  rope = Rope(THETA, sections=(2, 3, 3), share=0.5, neighbours=True)
  cos, sin = rotation.rotation_angles(jnp.asarray(axes[None]), HEAD, rope)
  turned = rotation.rotate(jnp.asarray(x[None]), cos, sin, rope.neighbours)[0]
  wanted = wanted[0].transpose(0, 1).numpy()
  np.testing.assert_allclose(np.asarray(turned), wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("interleaved", [False, True])
def test_equal_axes_turn_as_one_position(interleaved):
  rope = Rope(THETA, sections=(6, 5, 5), interleaved=interleaved)
  place = jnp.arange(7)[None]
  axes = jnp.broadcast_to(place[..., None], (1, 7, 3))
  for wide, single in zip(
    rotation.rotation_angles(axes, HEAD, rope),
    rotation.rotation_angles(place, HEAD, Rope(THETA)),
    strict=True,
  ):
    np.testing.assert_array_equal(np.asarray(wide), np.asarray(single))


def test_sections_must_fit_the_head():
  with pytest.raises(InputError, match="must be three numbers"):
    Rope(sections=(4, 4))
  with pytest.raises(InputError, match="must add up to 16"):
    Rope(sections=(4, 4, 4)).channel_axes(HEAD)
