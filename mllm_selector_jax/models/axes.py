"""Logical axis names of every parameter, by rules over its path."""

import re

import jax

from mllm_selector_jax import types
from mllm_selector_jax.models.decoder_config import split_kind

# The first rule whose pattern is found in the path wins. Names: "layers", "vocab",
# "embed" (a tower's width), "heads", "kv_heads", "mlp", "experts", "patch", "rank" (of
# an adapter, where its other side is not "embed", with which it shares a mesh axis).
RULES = (
  (r"^decoder/token_embedding$", ("vocab", "embed")),
  (r"^decoder/head$", ("embed", "vocab")),
  (r"^decoder/layer_inputs/table$", ("vocab", "embed")),
  (r"^decoder/layer_inputs/projection/kernel$", ("embed", None)),
  (r"^decoder/layers/input_gate/kernel$", ("layers", "embed", None)),
  (r"^decoder/layers/input_out/kernel$", ("layers", None, "embed")),
  (r"^vision/(class|mask)_embedding$", (None,)),
  (r"^vision/position_embedding$", (None, "embed")),
  (r"^vision/position_table$", (None, None, "embed")),
  (r"^vision/standard_(bias|scale)$", (None,)),
  (r"^vision/patch_embedding/kernel$", ("patch", "embed")),
  (r"^vision/patch_embedding/bias$", ("embed",)),
  (r"^projector/layers/first/kernel$", ("layers", "embed", "mlp")),
  (r"^projector/layers/first/bias$", ("layers", "mlp")),
  (r"^projector/layers/second/kernel$", ("layers", "mlp", "embed")),
  (r"^projector/layers/(second/bias|norm/(scale|bias))$", ("layers", None)),
  (r"^projector/narrow/kernel$", ("embed", None)),
  (r"^projector/first/kernel$", ("embed", "mlp")),
  (r"^projector/first/bias$", ("mlp",)),
  (r"^projector/second/kernel$", ("mlp", "embed")),
  (r"^projector/second/bias$", (None,)),
  (r"^projector/(gate|up)/kernel$", ("embed", "mlp")),
  (r"^projector/down/kernel$", ("mlp", "embed")),
  (
    r"^adapter/layers/(query|key|value|qkv|gate|up|gate_up|input_gate)/lora_a$",
    ("layers", "embed", None),
  ),
  (r"^adapter/layers/input_out/lora_a$", ("layers", None, None)),
  (r"^adapter/layers/input_gate/lora_b$", ("layers", None, None)),
  (r"^adapter/layers/out/lora_a$", ("layers", "heads", "rank")),
  (r"^adapter/layers/down/lora_a$", ("layers", "mlp", "rank")),
  (r"^adapter/layers/query/lora_b$", ("layers", "rank", "heads")),
  (r"^adapter/layers/(key|value)/lora_b$", ("layers", "rank", "kv_heads")),
  (r"^adapter/layers/(gate|up)/lora_b$", ("layers", "rank", "mlp")),
  # Layers that share an adapter would begin in the middle of a device's part.
  (r"^adapter/(vision/)?layers/(qkv|gate_up)/lora_b$", ("layers", "rank", None)),
  (r"^adapter/layers/(out|down|input_out)/lora_b$", ("layers", None, "embed")),
  (
    r"^adapter/vision/layers/(query|key|value|qkv|gate|up)/lora_a$",
    ("layers", "embed", None),
  ),
  (r"^adapter/vision/layers/out/lora_a$", ("layers", "heads", "rank")),
  (r"^adapter/vision/layers/down/lora_a$", ("layers", "mlp", "rank")),
  (r"^adapter/vision/layers/(query|key|value)/lora_b$", ("layers", "rank", "heads")),
  (r"^adapter/vision/layers/(gate|up)/lora_b$", ("layers", "rank", "mlp")),
  (r"^adapter/vision/layers/(out|down)/lora_b$", ("layers", None, "embed")),
  (r"^adapter/projector/layers/first/lora_a$", ("layers", "embed", None)),
  (r"^adapter/projector/layers/first/lora_b$", ("layers", "rank", "mlp")),
  (r"^adapter/projector/layers/second/lora_a$", ("layers", "mlp", "rank")),
  (r"^adapter/projector/layers/second/lora_b$", ("layers", None, "embed")),
  (r"^adapter/projector/(first|narrow|gate|up)/lora_a$", ("embed", None)),
  (r"^adapter/projector/(first|gate|up)/lora_b$", ("rank", "mlp")),
  (r"^adapter/projector/(second|down)/lora_a$", ("mlp", "rank")),
  (r"^adapter/projector/(second|narrow|down)/lora_b$", (None, "embed")),
  (r"^decoder/layers/(key|value)/kernel$", ("layers", "embed", "kv_heads")),
  (r"^decoder/layers/experts/router$", ("layers", "embed", None)),
  (r"^decoder/layers/experts/gate_up$", ("layers", "experts", "embed", None)),
  (r"^decoder/layers/experts/down$", ("layers", "experts", None, "embed")),
  (r"/layers/(query|key|value)/kernel$", ("layers", "embed", "heads")),
  (r"^decoder/layers/(key|value)/bias$", ("layers", "kv_heads")),
  (r"/layers/(query|key|value)/bias$", ("layers", "heads")),
  (r"/layers/out/kernel$", ("layers", "heads", "embed")),
  (r"/layers/(gate|up)/kernel$", ("layers", "embed", "mlp")),
  (r"/layers/(gate|up)/bias$", ("layers", "mlp")),
  (r"/layers/down/kernel$", ("layers", "mlp", "embed")),
  (r"/layers/(out|down)/bias$", ("layers", None)),
  (r"/layers/\w+_norm/(scale|bias)$", ("layers", None)),
  (r"/layers/\w+_scale$", ("layers", None)),
  (r"^vision/layers/\w+_bounds/\w+$", ("layers",)),
  (r"^projector/newline$", (None,)),
  # Query, key and value are one, which begin in the middle of a device's part.
  (
    r"^decoder/layers/mixer/(mix|open|write|forget)/kernel$",
    ("layers", "embed", "heads"),
  ),
  (r"^decoder/layers/mixer/convolution$", ("layers", None, "heads")),
  (r"^decoder/layers/mixer/forget_(log|bias)$", ("layers", "heads")),
  (r"^decoder/layers/mixer/mixed_scale$", ("layers", None)),
  (r"^adapter/layers/mixer/\w+/lora_a$", ("layers", "embed", None)),
  (r"^adapter/layers/mixer/\w+/lora_b$", ("layers", "rank", "heads")),
  (
    r"^(decoder/(layer_inputs/)?norm|projector/(patch_)?norm|vision/(pre|post)_norm)/(scale|bias)$",
    (None,),
  ),
)


def path_name(path: tuple) -> str:
  """A leaf's keys joined by "/"."""
  return "/".join(str(key.key) for key in path)


def logical_axes(params: types.Params) -> types.Params:
  """The tree of `params` with a tuple of logical axis names (or None) a leaf."""

  def names(path, leaf):
    joined, _ = split_kind(path_name(path))
    for pattern, axes in RULES:
      if re.search(pattern, joined):
        assert len(axes) == len(leaf.shape), (joined, axes, leaf.shape)
        return axes
    raise AssertionError(f"no rule names the axes of {joined}")

  return jax.tree_util.tree_map_with_path(names, params)
