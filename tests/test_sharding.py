import jax
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.types import InputError


def test_what_is_left_of_the_devices_is_taken():
  mesh = sharding.make_mesh(-1, 2, 2)
  assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
  ("shape", "words"),
  [
    ((3, 1, 1), "does not fill the 8 devices"),
    ((-1, 3, 1), "does not fill the 8 devices"),
    ((1, 16, 1), "does not fill the 8 devices"),
    ((-1, -1, 1), "at most one may be -1"),
    ((0, 8, 1), "must be positive"),
  ],
)
def test_a_mesh_that_does_not_divide_the_devices_is_refused(shape, words):
  with pytest.raises(InputError, match=words):
    sharding.make_mesh(*shape, devices=jax.devices()[:8])


def test_a_mesh_that_would_cut_heads_is_refused_with_what_fits():
  mesh = sharding.make_mesh(1, 1, 8)
  sharding.check_heads(mesh, heads=32, key_value_heads=8)
  with pytest.raises(
    InputError, match=r"tensor=8 .* \(28 heads, 4 key value heads\).* 1, 2, 4\."
  ):
    sharding.check_heads(mesh, heads=28, key_value_heads=4, vision_heads=16)
