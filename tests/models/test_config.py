import dataclasses

import pytest

from mllm_selector_jax.types import InputError
from tests.models import packed


def test_configs_are_hashable_and_count_patches():
  config = packed.make_config(vision_image_size=24)
  assert hash(config) == hash(packed.make_config(vision_image_size=24))
  assert config.patches == 9


@pytest.mark.parametrize(
  "layer, run", [(-1, 2), (-2, 1), (-3, 0), (0, 0), (1, 1), (2, 2)]
)
def test_feature_layer_says_how_many_layers_run(layer, run):
  config = packed.make_config(feature_layer=layer)
  assert config.vision_layers == run and config.projected_width == 16


def test_several_layers_keep_their_order_and_join_their_channels():
  config = packed.make_config(feature_layer=(-2, 0, -1, 1))
  assert config.projected_states == (1, 0, 2, 1)
  assert (config.vision_layers, config.projected_width) == (2, 4 * 16)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"feature_layer": -4}, "vision_feature_layer is -4"),
    ({"feature_layer": 3}, "vision_feature_layer is 3"),
    ({"feature_layer": (-1, 3)}, r"vision_feature_layer is \(-1, 3\)"),
    ({"feature_layer": (-4, 0)}, r"vision_feature_layer is \(-4, 0\)"),
    ({"feature_layer": ()}, r"vision_feature_layer is \(\)"),
    ({"feature_layer": (-1, 1), "feature_norm": True}, "a single layer only"),
    ({"dtype": "float16"}, "'float16'"),
    ({"remat": "some"}, "none, full, dots"),
    ({"image_token": 40}, "40"),
    ({"projector_activation": "relu"}, "'relu'"),
    ({"vision_activation": "swish"}, "'swish'"),
    ({"vision_image_size": 4}, "8 pixels does not fit an image of 4"),
    ({"vision_heads": 3}, "3 heads"),
    ({"decoder_kv_heads": 3}, "3 key-value"),
    ({"decoder_head_dim": 5}, "5 is odd"),
  ],
)
def test_wrong_values_are_named(changes, message):
  with pytest.raises(InputError, match=message):
    packed.make_config(**changes)


def test_a_config_does_not_change():
  with pytest.raises(dataclasses.FrozenInstanceError):
    packed.CONFIG.dtype = "bfloat16"
