"""Which of our parameters is which tensor of a Hugging Face LLaVA.

The names are those of transformers 4, which versions 4 and 5 both load; names
of a model that version 5 saved are brought to that form first.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator

import jax
import numpy as np

from mllm_selector_jax import types
from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.axes import path_name
from mllm_selector_jax.models.config import MllmConfig

VISION = "vision_tower.vision_model."
DECODER = "language_model.model."
TIED_HEAD = "language_model.lm_head.weight"

# Ours, without the kind of array at the end, to theirs; * is the layer.
NAMES = {
  "vision/class_embedding": VISION + "embeddings.class_embedding",
  "vision/patch_embedding": VISION + "embeddings.patch_embedding.weight",
  "vision/position_embedding": VISION + "embeddings.position_embedding.weight",
  "vision/pre_norm": VISION + "pre_layrnorm",  # sic
  "vision/post_norm": VISION + "post_layernorm",
  "vision/layers/attention_norm": VISION + "encoder.layers.*.layer_norm1",
  "vision/layers/query": VISION + "encoder.layers.*.self_attn.q_proj",
  "vision/layers/key": VISION + "encoder.layers.*.self_attn.k_proj",
  "vision/layers/value": VISION + "encoder.layers.*.self_attn.v_proj",
  "vision/layers/out": VISION + "encoder.layers.*.self_attn.out_proj",
  "vision/layers/mlp_norm": VISION + "encoder.layers.*.layer_norm2",
  "vision/layers/up": VISION + "encoder.layers.*.mlp.fc1",
  "vision/layers/down": VISION + "encoder.layers.*.mlp.fc2",
  "projector/first": "multi_modal_projector.linear_1",
  "projector/second": "multi_modal_projector.linear_2",
  "decoder/token_embedding": DECODER + "embed_tokens.weight",
  "decoder/layers/attention_norm": DECODER + "layers.*.input_layernorm",
  "decoder/layers/query": DECODER + "layers.*.self_attn.q_proj",
  "decoder/layers/key": DECODER + "layers.*.self_attn.k_proj",
  "decoder/layers/value": DECODER + "layers.*.self_attn.v_proj",
  "decoder/layers/out": DECODER + "layers.*.self_attn.o_proj",
  "decoder/layers/mlp_norm": DECODER + "layers.*.post_attention_layernorm",
  "decoder/layers/gate": DECODER + "layers.*.mlp.gate_proj",
  "decoder/layers/up": DECODER + "layers.*.mlp.up_proj",
  "decoder/layers/down": DECODER + "layers.*.mlp.down_proj",
  "decoder/norm": DECODER + "norm",
  "decoder/head": TIED_HEAD,
}

RENAMES = (
  (r"^model\.language_model\.", DECODER),
  (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
  (r"^lm_head\.", "language_model.lm_head."),
  (r"^vision_tower\.(?!vision_model\.)", VISION),
)

# Buffers that older versions saved; they hold no weights.
BUFFERS = re.compile(r"\.(position_ids|rotary_emb\.inv_freq)$")


def canonical_name(name: str) -> str:
  """A tensor's name in the form of transformers 4."""
  for pattern, replacement in RENAMES:
    name = re.sub(pattern, replacement, name)
  return name


@dataclasses.dataclass(frozen=True)
class Leaf:
  """One of our arrays and the tensors that it is made of.

  Attributes:
    path: our path, joined by "/".
    names: the tensors; one a layer where layers are stacked.
    stacked: whether our array has a leading layer axis.
    shape: of one tensor, theirs.
    to_ours, to_theirs: one tensor's layout, without the layer axis.
  """

  path: str
  names: tuple[str, ...]
  stacked: bool
  shape: tuple[int, ...]
  to_ours: Callable[[np.ndarray], np.ndarray]
  to_theirs: Callable[[np.ndarray], np.ndarray]


def _same(array: np.ndarray) -> np.ndarray:
  return array


def _transpose(array: np.ndarray) -> np.ndarray:
  return array.T


def _patch_to_ours(array: np.ndarray) -> np.ndarray:
  # [width, channel, row, column] to [(row, column, channel), width]
  return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])


def _patch_to_theirs(array: np.ndarray) -> np.ndarray:
  side = round((len(array) / 3) ** 0.5)
  return array.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)


def _make_leaf(path: str, shape: tuple[int, ...]) -> Leaf:
  stem, _, kind = path.rpartition("/")
  stacked = "/layers/" in path
  to_ours, to_theirs = _same, _same
  if path == "vision/patch_embedding/kernel":
    name, to_ours, to_theirs = NAMES[stem], _patch_to_ours, _patch_to_theirs
  elif kind in ("kernel", "scale", "bias"):
    name = NAMES[stem] + (".bias" if kind == "bias" else ".weight")
    if kind == "kernel":
      to_ours = to_theirs = _transpose
  else:
    name = NAMES[path]
    if kind == "head":
      to_ours = to_theirs = _transpose
  layers = range(shape[0]) if stacked else (0,)
  one = to_theirs(np.broadcast_to(np.float32(0), shape[1:] if stacked else shape))
  names = tuple(name.replace("*", str(layer)) for layer in layers)
  return Leaf(path, names, stacked, one.shape, to_ours, to_theirs)


def list_leaves(config: MllmConfig) -> Iterator[Leaf]:
  """Every array of the model, in the order of the flattened tree."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(mllm.abstract(config)):
    yield _make_leaf(path_name(path), leaf.shape)


def to_tensors(
  config: MllmConfig, params: types.Params
) -> Iterator[tuple[str, np.ndarray]]:
  """Every tensor of the Hugging Face form, by name, float32."""
  leaves = jax.tree.leaves(params)
  for leaf, array in zip(list_leaves(config), leaves, strict=True):
    array = np.asarray(array, np.float32)
    parts = array if leaf.stacked else array[None]
    for name, part in zip(leaf.names, parts, strict=True):
      yield name, np.ascontiguousarray(leaf.to_theirs(part))
