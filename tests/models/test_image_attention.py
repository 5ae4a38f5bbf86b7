"""Attention of packed patches, which see all of their image or window."""

import jax
import numpy as np
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import attention
from tests.models.test_attention import attend, plain_attention, random_case

# Images of one patch, of some, and over the edges of a tile; no image at all; no
# padding.
IMAGES = ([1, 40, 130, 64], [], [235, 65])


def lay_out_images(images, length):
  segments = np.zeros((len(images), length), np.int32)
  for row, sizes in enumerate(images):
    segments[row, : sum(sizes)] = np.repeat(np.arange(len(sizes)) + 1, sizes)
  return attention.Layout(segments, segments * 0, causal=False)


# The heads of the towers of Qwen3-VL, of SigLIP and of Qwen2.5-VL.
@pytest.mark.parametrize(
  "width, dtype, tolerance",
  [(64, "float32", 1e-5), (72, "float32", 1e-5), (80, "bfloat16", 2e-2)],
)
def test_splash_sees_the_whole_image(width, dtype, tolerance):
  layout = lay_out_images(IMAGES, 300)
  rng = np.random.default_rng(5)
  arrays = random_case(rng, batch=3, length=300, heads=2, width=width)
  arrays = [np.asarray(x, dtype) for x in arrays]
  found = attend(*arrays, layout, "splash").astype(np.float64)
  wanted = plain_attention(*(x.astype(np.float64) for x in arrays), layout)
  real = layout.segments > 0
  assert np.isfinite(found).all()
  np.testing.assert_allclose(found[real], wanted[real], atol=tolerance)


def find_gradients(attend, arrays, weights):
  def total(arrays):
    return (weights * attend(*arrays) ** 2).sum()

  return jax.jit(jax.grad(total))(arrays)


def test_splash_has_the_same_gradient_in_images():
  layout = lay_out_images(IMAGES, 300)
  arrays = random_case(np.random.default_rng(6), batch=3, length=300, width=20)
  real = (layout.segments > 0)[..., None, None]
  found, wanted = (
    find_gradients(attention.make_attend(kernel, layout), arrays, real)
    for kernel in ("splash", "xla")
  )
  for one, other in zip(found, wanted, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


# Windows at an image's edge are smaller, down to a patch.
WINDOWS = ([16, 16, 4, 1, 1, 16, 2], [], [16] * 5, [9, 16, 16, 7])


@pytest.mark.parametrize("length", [80, 91])
@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2)])
def test_short_segments_agree_with_plain_numpy(length, heads, kv_heads):
  layout = lay_out_images(WINDOWS, length)._replace(longest=16)
  rng = np.random.default_rng(7)
  arrays = random_case(rng, 4, length, heads, kv_heads, width=8)
  wanted = plain_attention(*arrays, layout)
  plain = attention.make_biased(attention.make_bias(layout))
  for kernel in ("splash", "cudnn"):  # neither is asked
    near = attention.make_attend(kernel, layout)
    np.testing.assert_allclose(near(*arrays), wanted, atol=1e-5)
    pairs = zip(
      find_gradients(near, arrays, 1), find_gradients(plain, arrays, 1), strict=True
    )
    for one, other in pairs:
      np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())


@pytest.mark.parametrize("longest", [None, 64])
def test_images_over_a_mesh_change_nothing(longest):
  layout = lay_out_images([[64, 30], [1, 64, 5]], 100)._replace(longest=longest)
  arrays = random_case(np.random.default_rng(8), length=100, width=8)
  alone = attend(*arrays, layout, "splash")
  with sharding.use(sharding.make_mesh(2, 1, 4)):
    found = attend(*arrays, layout, "splash")
  np.testing.assert_allclose(found, alone, atol=1e-6)


def test_cudnn_gets_no_mask_that_is_too_large(monkeypatch):
  monkeypatch.setattr(attention, "MASKED", 299)
  layout = lay_out_images(IMAGES, 300)
  arrays = random_case(np.random.default_rng(9), batch=3, length=300)
  # Without a GPU cuDNN itself would refuse.
  np.testing.assert_array_equal(
    attend(*arrays, layout, "cudnn"), attend(*arrays, layout, "xla")
  )
