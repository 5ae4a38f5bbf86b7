"""The names of tensors in Hugging Face models, and which of our parameters they are.

The names are those that transformers 4 wrote, which versions 4 and 5 both load; the
names of other forms are brought to these first.
"""

import re
from typing import NamedTuple

DECODER = "language_model.model."
TIED_HEAD = "language_model.lm_head.weight"
_PROJECTOR = "multi_modal_projector."
_CLIP = "vision_tower.vision_model."
_LAYERS = "vision_tower.encoder.layer.*."
_BLOCKS, _MERGER = "visual.blocks.*.", "visual.merger."
_MERGERS = "visual.deepstack_merger_list.*."

# Ours, without the kind of array at the end, to theirs; * is the layer.
NAMES = {
  "projector/norm": _PROJECTOR + "layer_norm",
  "projector/first": _PROJECTOR + "linear_1",
  "projector/second": _PROJECTOR + "linear_2",
  "projector/newline": "image_newline",
  "decoder/token_embedding": DECODER + "embed_tokens.weight",
  "decoder/layers/attention_norm": DECODER + "layers.*.input_layernorm",
  "decoder/layers/query": DECODER + "layers.*.self_attn.q_proj",
  "decoder/layers/key": DECODER + "layers.*.self_attn.k_proj",
  "decoder/layers/value": DECODER + "layers.*.self_attn.v_proj",
  "decoder/layers/query_norm": DECODER + "layers.*.self_attn.q_norm",
  "decoder/layers/key_norm": DECODER + "layers.*.self_attn.k_norm",
  "decoder/layers/out": DECODER + "layers.*.self_attn.o_proj",
  "decoder/layers/mlp_norm": DECODER + "layers.*.post_attention_layernorm",
  "decoder/layers/gate": DECODER + "layers.*.mlp.gate_proj",
  "decoder/layers/up": DECODER + "layers.*.mlp.up_proj",
  "decoder/layers/down": DECODER + "layers.*.mlp.down_proj",
  "decoder/norm": DECODER + "norm",
  "decoder/head": TIED_HEAD,
}

# By `DecoderConfig.names`: what differs from `NAMES`.
DECODERS: dict[str, dict[str, str]] = {
  "llama": {},
  "gemma3": {
    "decoder/layers/attention_post_norm": DECODER + "layers.*.post_attention_layernorm",
    "decoder/layers/mlp_norm": DECODER + "layers.*.pre_feedforward_layernorm",
    "decoder/layers/mlp_post_norm": DECODER + "layers.*.post_feedforward_layernorm",
  },
}

# By `MllmConfig.names`. A family whose projector has other names is a line here.
MODELS: dict[str, dict[str, str]] = {
  "llava": NAMES,
  "vipllava": {**NAMES, "projector/norm": _PROJECTOR + "projector_layernorm"},
  "qwen2_vl": {
    **NAMES,
    "projector/patch_norm": _MERGER + "ln_q",
    "projector/first": _MERGER + "mlp.0",
    "projector/second": _MERGER + "mlp.2",
  },
  "qwen3_vl": {
    **NAMES,
    "projector/patch_norm": _MERGER + "norm",
    "projector/first": _MERGER + "linear_fc1",
    "projector/second": _MERGER + "linear_fc2",
    "projector/layers/norm": _MERGERS + "norm",
    "projector/layers/first": _MERGERS + "linear_fc1",
    "projector/layers/second": _MERGERS + "linear_fc2",
  },
  "mistral3": {
    **NAMES,
    "projector/patch_norm": _PROJECTOR + "norm",
    "projector/narrow": _PROJECTOR + "patch_merger.merging_layer",
  },
}
_HEAD = (r"^language_model\.lm_head\.", "lm_head.")
_WHOLE = "model."
# By `MllmConfig.names`: the names of exports where they are not the canonical ones.
PUBLISHED: dict[str, tuple[tuple[str, str], ...]] = {
  "qwen2_vl": ((r"^language_model\.model\.", _WHOLE), _HEAD),
  "qwen3_vl": (
    (r"^language_model\.model\.", f"{_WHOLE}language_model."),
    (r"^visual\.", f"{_WHOLE}visual."),
    _HEAD,
  ),
}


class Tower(NamedTuple):
  """The names of a vision tower's tensors.

  Attributes:
    names: as `NAMES`.
    renames: from the names of other forms to these, as `RENAMES`.
    fused: ends of names whose tensors hold query, key and value one after the other;
      the three take the places of "qkv" by the names in `parts`.
    parts: ends of the names of query, key and value.
    joined: whether exports hold the three as one tensor, too.
    modules: from these names to those that the modules have in transformers 5.
  """

  names: dict[str, str]
  renames: tuple[tuple[str, str], ...] = ()
  fused: str = ""
  parts: tuple[str, str, str] = ("", "", "")
  joined: bool = False
  modules: tuple[tuple[str, str], ...] = ()


CLIP = Tower(
  names={
    "vision/class_embedding": _CLIP + "embeddings.class_embedding",
    "vision/patch_embedding": _CLIP + "embeddings.patch_embedding",
    "vision/position_embedding": _CLIP + "embeddings.position_embedding.weight",
    "vision/pre_norm": _CLIP + "pre_layrnorm",  # sic
    "vision/post_norm": _CLIP + "post_layernorm",
    "vision/layers/attention_norm": _CLIP + "encoder.layers.*.layer_norm1",
    "vision/layers/query": _CLIP + "encoder.layers.*.self_attn.q_proj",
    "vision/layers/key": _CLIP + "encoder.layers.*.self_attn.k_proj",
    "vision/layers/value": _CLIP + "encoder.layers.*.self_attn.v_proj",
    "vision/layers/out": _CLIP + "encoder.layers.*.self_attn.out_proj",
    "vision/layers/mlp_norm": _CLIP + "encoder.layers.*.layer_norm2",
    "vision/layers/up": _CLIP + "encoder.layers.*.mlp.fc1",
    "vision/layers/down": _CLIP + "encoder.layers.*.mlp.fc2",
  },
  renames=(
    # A tower alone; then one that transformers 5 wrote.
    (r"^vision_model\.", _CLIP),
    (r"^vision_tower\.(?!vision_model\.)", _CLIP),
    (r"^(embeddings|encoder|pre_layrnorm|post_layernorm|head)\.", _CLIP + r"\1."),
  ),
  modules=((r"^vision_tower\.vision_model\.", "vision_tower."),),
)

INTERN_VIT = Tower(
  names={
    "vision/class_embedding": "vision_tower.embeddings.cls_token",
    "vision/patch_embedding": "vision_tower.embeddings.patch_embeddings.projection",
    "vision/position_embedding": "vision_tower.embeddings.position_embeddings",
    "vision/post_norm": "vision_tower.layernorm",
    "vision/layers/attention_norm": _LAYERS + "layernorm_before",
    "vision/layers/query": _LAYERS + "attention.q_proj",
    "vision/layers/key": _LAYERS + "attention.k_proj",
    "vision/layers/value": _LAYERS + "attention.v_proj",
    "vision/layers/query_norm": _LAYERS + "attention.q_norm",
    "vision/layers/key_norm": _LAYERS + "attention.k_norm",
    "vision/layers/out": _LAYERS + "attention.projection_layer",
    "vision/layers/attention_scale": _LAYERS + "lambda_1",
    "vision/layers/mlp_norm": _LAYERS + "layernorm_after",
    "vision/layers/up": _LAYERS + "mlp.fc1",
    "vision/layers/down": _LAYERS + "mlp.fc2",
    "vision/layers/mlp_scale": _LAYERS + "lambda_2",
  },
  renames=(
    (r"^(embeddings|encoder|layernorm)\.", r"vision_tower.\1."),
    # OpenGVLab's own checkpoints.
    (r"^vision_model\.", "vision_tower."),
    (r"^(vision_tower\.embeddings\.)class_embedding$", r"\1cls_token"),
    (
      r"^(vision_tower\.embeddings\.)patch_embedding\.",
      r"\1patch_embeddings.projection.",
    ),
    (r"^(vision_tower\.embeddings\.)position_embedding$", r"\1position_embeddings"),
    (r"^(vision_tower\.encoder\.)layers\.", r"\1layer."),
    (r"^(vision_tower\..*\.)attn\.", r"\1attention."),
    (r"^(vision_tower\..*\.attention\.)proj\.", r"\1projection_layer."),
    (r"^(vision_tower\..*\.)ls([12])$", r"\1lambda_\2"),
    (r"^(vision_tower\..*\.)norm1\.", r"\1layernorm_before."),
    (r"^(vision_tower\..*\.)norm2\.", r"\1layernorm_after."),
    (r"^mlp1\.0\.", _PROJECTOR + "layer_norm."),
    (r"^mlp1\.1\.", _PROJECTOR + "linear_1."),
    (r"^mlp1\.3\.", _PROJECTOR + "linear_2."),
  ),
  fused=".attention.qkv.",
  parts=(".attention.q_proj.", ".attention.k_proj.", ".attention.v_proj."),
)

DINOV2 = Tower(
  names={
    "vision/class_embedding": "vision_tower.embeddings.cls_token",
    "vision/mask_embedding": "vision_tower.embeddings.mask_token",
    "vision/patch_embedding": "vision_tower.embeddings.patch_embeddings.projection",
    "vision/position_embedding": "vision_tower.embeddings.position_embeddings",
    "vision/post_norm": "vision_tower.layernorm",
    "vision/layers/attention_norm": _LAYERS + "norm1",
    "vision/layers/query": _LAYERS + "attention.attention.query",
    "vision/layers/key": _LAYERS + "attention.attention.key",
    "vision/layers/value": _LAYERS + "attention.attention.value",
    "vision/layers/out": _LAYERS + "attention.output.dense",
    "vision/layers/attention_scale": _LAYERS + "layer_scale1.lambda1",
    "vision/layers/mlp_norm": _LAYERS + "norm2",
    "vision/layers/up": _LAYERS + "mlp.fc1",
    "vision/layers/down": _LAYERS + "mlp.fc2",
    "vision/layers/mlp_scale": _LAYERS + "layer_scale2.lambda1",
  },
  renames=(
    (r"^(embeddings|encoder|layernorm)\.", r"vision_tower.\1."),
    # Transformers 5.
    (r"^(vision_tower\..*\.attention\.)q_proj\.", r"\1attention.query."),
    (r"^(vision_tower\..*\.attention\.)k_proj\.", r"\1attention.key."),
    (r"^(vision_tower\..*\.attention\.)v_proj\.", r"\1attention.value."),
    (r"^(vision_tower\..*\.attention\.)o_proj\.", r"\1output.dense."),
  ),
  modules=(
    (r"\.attention\.query$", ".q_proj"),
    (r"\.attention\.key$", ".k_proj"),
    (r"\.attention\.value$", ".v_proj"),
    (r"\.output\.dense$", ".o_proj"),
  ),
)

_ENCODER = "vision_tower.transformer.layers.*."
PIXTRAL = Tower(
  names={
    "vision/patch_embedding": "vision_tower.patch_conv",
    "vision/pre_norm": "vision_tower.ln_pre",
    "vision/layers/attention_norm": _ENCODER + "attention_norm",
    "vision/layers/query": _ENCODER + "attention.q_proj",
    "vision/layers/key": _ENCODER + "attention.k_proj",
    "vision/layers/value": _ENCODER + "attention.v_proj",
    "vision/layers/out": _ENCODER + "attention.o_proj",
    "vision/layers/mlp_norm": _ENCODER + "ffn_norm",
    "vision/layers/gate": _ENCODER + "feed_forward.gate_proj",
    "vision/layers/up": _ENCODER + "feed_forward.up_proj",
    "vision/layers/down": _ENCODER + "feed_forward.down_proj",
  },
)

_VISUAL = {
  "vision/patch_embedding": "visual.patch_embed.proj",
  "vision/layers/attention_norm": _BLOCKS + "norm1",
  "vision/layers/query": _BLOCKS + "attn.q",
  "vision/layers/key": _BLOCKS + "attn.k",
  "vision/layers/value": _BLOCKS + "attn.v",
  "vision/layers/out": _BLOCKS + "attn.proj",
  "vision/layers/mlp_norm": _BLOCKS + "norm2",
}


def _make_visual(**names: str) -> Tower:
  """A tower of Qwen's, whose MLP has linear layers of these names."""
  own = {f"vision/layers/{ours}": _BLOCKS + name for ours, name in names.items()}
  return Tower(
    names={**_VISUAL, **own},
    # Transformers 5, and fine-tuned models.
    renames=((r"^model\.visual\.", "visual."),),
    fused=".attn.qkv.",
    parts=(".attn.q.", ".attn.k.", ".attn.v."),
    joined=True,
  )


QWEN2_VL = _make_visual(up="mlp.fc1", down="mlp.fc2")
QWEN2_5_VL = _make_visual(gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj")
QWEN3_VL = _make_visual(up="mlp.linear_fc1", down="mlp.linear_fc2")
QWEN3_VL.names["vision/position_embedding"] = "visual.pos_embed.weight"

# By `VisionConfig.names`.
TOWERS: dict[str, Tower] = {
  "clip": CLIP,
  "internvl_vision": INTERN_VIT,
  "dinov2": DINOV2,
  "qwen2_vl": QWEN2_VL,
  "qwen2_5_vl": QWEN2_5_VL,
  "qwen3_vl": QWEN3_VL,
  "pixtral": PIXTRAL,
}

# Axes of size 1 that tensors with these ends of names have before ours.
LEADING_AXES = {".cls_token": 2, ".mask_token": 1, ".position_embeddings": 1}

# Other forms' names to these. In order: transformers 5 (of a whole model), LLaVA's own
# checkpoints, a decoder alone. A tower's own come after them.
RENAMES = (
  (r"^model\.language_model\.", DECODER),
  (r"^model\.(vision_tower|multi_modal_projector)\.(?!vision_tower)", r"\1."),
  (r"^model\.image_newline$", "image_newline"),
  (r"^(model\.)?mm_projector\.0\.", "multi_modal_projector.linear_1."),
  (r"^(model\.)?mm_projector\.2\.", "multi_modal_projector.linear_2."),
  (r"^model\.vision_tower\.vision_tower\.", "vision_tower."),
  (r"^model\.(embed_tokens|layers|norm)\.", DECODER + r"\1."),
  (r"^lm_head\.", "language_model.lm_head."),
)

# Passed over: buffers that older versions saved, and what LLaVA never runs: the
# text half of a CLIP or SigLIP, its projections, SigLIP's pooling head.
UNUSED = re.compile(
  r"\.(position_ids|rotary_emb\.inv_freq)$"
  r"|^(text_model|text_projection|visual_projection)\.|^logit_(scale|bias)$"
  r"|^vision_tower\.vision_model\.head\."
)


def canonical_name(name: str, tower: str = "clip") -> str:
  """A tensor's name in the form that transformers 4 wrote.

  Args:
    name: in any form.
    tower: a key of `TOWERS`.
  """
  for pattern, replacement in (*RENAMES, *TOWERS[tower].renames):
    name = re.sub(pattern, replacement, name)
  return name


def split_fused(name: str, tower: str) -> tuple[str, ...]:
  """The canonical names of the equal parts of a tensor's rows; its own name alone.

  Args:
    name: a canonical name.
    tower: a key of `TOWERS`.
  """
  kind = TOWERS[tower]
  if not kind.fused or kind.fused not in name:
    return (name,)
  return tuple(name.replace(kind.fused, part) for part in kind.parts)


def published_name(name: str, model: str) -> str:
  """The name of a tensor in an export.

  Args:
    name: a canonical name.
    model: a key of `MODELS`.
  """
  for pattern, replacement in PUBLISHED.get(model, ()):
    name = re.sub(pattern, replacement, name)
  return name


def join_fused(name: str, tower: str) -> str:
  """The canonical name of the tensor that an export holds a tensor in.

  It is another one for query, key and value where they are one tensor; the rows of the
  three then follow each other in the order of `Tower.parts`.

  Args:
    name: a canonical name.
    tower: a key of `TOWERS`.
  """
  kind = TOWERS[tower]
  if kind.joined:
    for part in kind.parts:
      name = name.replace(part, kind.fused)
  return name


def module_name(name: str, tower: str) -> str:
  """The name of a linear layer among the modules of a model in transformers 5.

  Args:
    name: its canonical name.
    tower: a key of `TOWERS`.
  """
  name = name.replace(DECODER, "language_model.")
  name = join_fused(name + ".", tower).removesuffix(".")
  for pattern, replacement in TOWERS[tower].modules:
    name = re.sub(pattern, replacement, name)
  return name
