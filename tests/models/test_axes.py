import dataclasses

import jax
import jax.numpy as jnp
import pytest

from mllm_selector_jax import sharding
from mllm_selector_jax.models import axes, mllm
from mllm_selector_jax.models.lora_options import MODULES, LoraConfig
from tests.models import packed

NAMES = {"layers", "vocab", "embed", "heads", "kv_heads", "mlp", "patch", "rank", None}


def test_layers_of_every_kind_have_axes():
  logical = axes.logical_axes(mllm.abstract(packed.LINEAR))
  layers = logical["decoder"]["layers"]
  assert layers["full"]["query"]["kernel"] == ("layers", "embed", "heads")
  assert layers["linear"]["gate"]["kernel"] == ("layers", "embed", "mlp")
  assert layers["linear"]["mixer"]["mix"]["kernel"] == ("layers", "embed", "heads")


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_has_axes(tied):
  params = mllm.abstract(packed.make_config(decoder_tied=tied))
  logical = axes.logical_axes(params)

  def check(array, names):
    assert len(names) == len(array.shape) and set(names) <= NAMES

  jax.tree.map(check, params, logical)
  assert logical["decoder"]["token_embedding"] == ("vocab", "embed")
  assert logical["decoder"]["layers"]["key"]["kernel"] == (
    "layers",
    "embed",
    "kv_heads",
  )


def test_layers_are_named_where_they_are_stacked_only():
  logical = axes.logical_axes(mllm.abstract(packed.CONFIG))
  for path, names in jax.tree_util.tree_leaves_with_path(
    logical, is_leaf=lambda x: isinstance(x, tuple)
  ):
    assert ("layers" in names) == ("/layers/" in axes.path_name(path))


def test_every_rule_is_of_use():
  lora = LoraConfig(2, 4.0, tuple(MODULES))
  biased = packed.make_config(
    decoder_qkv_bias=True,
    vision_patch_bias=True,
    vision_layer_scale=True,
    projector_norm="layer_norm",
    newline=True,
    lora=lora,
  )
  narrow = packed.make_config(narrows=True, merge=2, lora=lora)
  others = (
    dataclasses.replace(c, lora=lora)
    for c in (packed.NATIVE, packed.LINEAR, packed.GEMMA4, packed.SHARING)
  )
  paths = [
    axes.split_kind(axes.path_name(path))[0]
    for config in (
      *(biased, narrow, *others),
      dataclasses.replace(packed.GATED, lora=lora),
      packed.make_config(decoder_experts=4, decoder_experts_per_token=2),
    )
    for path, _ in jax.tree_util.tree_leaves_with_path(mllm.abstract(config))
  ]
  for pattern, names in axes.RULES:
    rest = [path for path in paths if not axes.re.search(pattern, path)]
    assert len(rest) < len(paths), (pattern, names)


def test_an_unknown_parameter_is_our_bug():
  with pytest.raises(AssertionError, match="decoder/surprise"):
    axes.logical_axes({"decoder": {"surprise": jnp.zeros(3)}})


def test_the_names_are_those_of_the_rules():
  assert NAMES - {None} <= set(sharding.Rules.__dataclass_fields__)
