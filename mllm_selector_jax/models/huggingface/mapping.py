"""Which of our parameters is which tensor of a Hugging Face LLaVA.

The names are those of transformers 4, which versions 4 and 5 both load; the names
of other forms are brought to these first.
"""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from mllm_selector_jax import types
from mllm_selector_jax.models.config import MllmConfig

VISION = "vision_tower.vision_model."
DECODER = "language_model.model."
TIED_HEAD = "language_model.lm_head.weight"

# Ours, without the kind of array at the end, to theirs; * is the layer.
NAMES = {
  "vision/class_embedding": VISION + "embeddings.class_embedding",
  "vision/patch_embedding": VISION + "embeddings.patch_embedding",
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

# Other forms' names to these. In order: transformers 5 (of a whole model, and of
# one that it made itself), LLaVA's own checkpoints, a decoder alone, a tower alone.
RENAMES = (
  (r"^model\.language_model\.", DECODER),
  (r"^model\.(vision_tower|multi_modal_projector)\.(?!vision_tower)", r"\1."),
  (r"^(model\.)?mm_projector\.0\.", "multi_modal_projector.linear_1."),
  (r"^(model\.)?mm_projector\.2\.", "multi_modal_projector.linear_2."),
  (r"^model\.vision_tower\.vision_tower\.", "vision_tower."),
  (r"^model\.(embed_tokens|layers|norm)\.", DECODER + r"\1."),
  (r"^lm_head\.", "language_model.lm_head."),
  (r"^vision_model\.", VISION),
  (r"^vision_tower\.(?!vision_model\.)", VISION),
  (r"^(embeddings|encoder|pre_layrnorm|post_layernorm|head)\.", VISION + r"\1."),
)

# Passed over: buffers that older versions saved, and what LLaVA never runs: the
# text half of a CLIP or SigLIP, its projections, SigLIP's pooling head.
UNUSED = re.compile(
  r"\.(position_ids|rotary_emb\.inv_freq)$"
  r"|^(text_model|text_projection|visual_projection)\.|^logit_(scale|bias)$"
  r"|^vision_tower\.vision_model\.head\."
)


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
    ours: shape of one tensor in our layout, without the layer axis.
    layout: "same", "transposed", or "patch" (a convolution as one product).
  """

  path: str
  names: tuple[str, ...]
  stacked: bool
  ours: tuple[int, ...]
  layout: str

  @property
  def shape(self) -> tuple[int, ...]:
    """Of one tensor, theirs."""
    return self.to_theirs(np.broadcast_to(np.float32(0), self.ours)).shape

  @property
  def by_token(self) -> bool:
    """Whether their rows are the vocabulary's."""
    return self.path in ("decoder/token_embedding", "decoder/head")

  def to_ours(self, array: np.ndarray) -> np.ndarray:
    """One tensor, in our layout."""
    if self.layout == "patch":
      # [width, channel, row, column] to [(row, column, channel), width]
      return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array.T if self.layout == "transposed" else array

  def to_theirs(self, array: np.ndarray) -> np.ndarray:
    """One tensor, in theirs."""
    if self.layout == "patch":
      side = round((len(array) / 3) ** 0.5)
      return array.reshape(side, side, 3, -1).transpose(3, 2, 0, 1)
    return array.T if self.layout == "transposed" else array


def _make_leaf(path: str, shape: tuple[int, ...]) -> Leaf:
  stem, _, kind = path.rpartition("/")
  stacked = "/layers/" in path
  if kind in ("kernel", "scale", "bias"):
    name = NAMES[stem] + (".bias" if kind == "bias" else ".weight")
  else:
    name = NAMES[path]
  layout = "same"
  if path == "vision/patch_embedding/kernel":
    layout = "patch"
  elif kind in ("kernel", "head"):
    layout = "transposed"
  layers = range(shape[0]) if stacked else (0,)
  names = tuple(name.replace("*", str(layer)) for layer in layers)
  return Leaf(path, names, stacked, shape[1:] if stacked else shape, layout)


def list_leaves(config: MllmConfig) -> Iterator[Leaf]:
  """Every array of the model without adapters, in the order of the flattened tree."""
  import jax

  from mllm_selector_jax.models import mllm
  from mllm_selector_jax.models.axes import path_name

  base = mllm.abstract(dataclasses.replace(config, lora=None))
  for path, leaf in jax.tree_util.tree_leaves_with_path(base):
    yield _make_leaf(path_name(path), leaf.shape)


def to_tensors(
  config: MllmConfig, params: types.Params
) -> Iterator[tuple[str, np.ndarray]]:
  """Every tensor of the Hugging Face form, by name, float32, one at a time.

  Arrays may lie on the devices of several processes; then all must go through them.
  """
  import jax

  from mllm_selector_jax.runs import row_shares

  leaves = jax.tree.leaves(params)
  for leaf, array in zip(list_leaves(config), leaves, strict=True):
    for layer, name in enumerate(leaf.names):
      part = row_shares.fetch(array[layer] if leaf.stacked else array)
      part = np.asarray(part, np.float32)
      yield name, np.ascontiguousarray(leaf.to_theirs(part))
