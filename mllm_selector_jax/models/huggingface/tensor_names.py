"""The names of tensors in Hugging Face models, and which of our parameters they are.

The names are those that transformers 4 wrote, which versions 4 and 5 both load; the
names of other forms are brought to these first.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from mllm_selector_jax.models.huggingface.tower_names import TOWERS, Fused

DECODER = "language_model.model."
TIED_HEAD = "language_model.lm_head.weight"
_PROJECTOR = "multi_modal_projector."
_MERGER = "visual.merger."
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


class DecoderNames(NamedTuple):
  """The names of a decoder's tensors.

  Attributes:
    names: what differs from `NAMES`.
    fused: which of the tensors are one in transformers.
  """

  names: dict[str, str]
  fused: tuple[Fused, ...] = ()


_ATTENTION = tuple(f".self_attn.{part}_proj." for part in "qkv")
_QKV = Fused(".self_attn.qkv_proj.", _ATTENTION, part_of=DECODER)
_GATES = (".mlp.gate_proj.", ".mlp.up_proj.")
_GATE_UP = Fused(".mlp.gate_up_proj.", _GATES, part_of=DECODER)

# By `DecoderConfig.names`.
DECODERS: dict[str, DecoderNames] = {
  "llama": DecoderNames({}),
  "phi3": DecoderNames({}, (_QKV, _GATE_UP)),
  "qwen3_moe": DecoderNames(
    {
      "decoder/layers/experts/router": DECODER + "layers.*.mlp.gate.weight",
      "decoder/layers/experts/gate_up": DECODER + "layers.*.mlp.experts.gate_up_proj",
      "decoder/layers/experts/down": DECODER + "layers.*.mlp.experts.down_proj",
    }
  ),
  "gemma3": DecoderNames(
    {
      "decoder/layers/attention_post_norm": DECODER
      + "layers.*.post_attention_layernorm",
      "decoder/layers/mlp_norm": DECODER + "layers.*.pre_feedforward_layernorm",
      "decoder/layers/mlp_post_norm": DECODER + "layers.*.post_feedforward_layernorm",
    }
  ),
  "glm4": DecoderNames(
    {
      "decoder/layers/attention_post_norm": DECODER
      + "layers.*.post_self_attn_layernorm",
      "decoder/layers/mlp_post_norm": DECODER + "layers.*.post_mlp_layernorm",
    },
    (_GATE_UP,),
  ),
}

DECODERS["gemma4"] = DecoderNames(
  {
    **DECODERS["gemma3"].names,
    "decoder/layers/layer_scale": DECODER + "layers.*.layer_scalar",
    "decoder/layer_inputs/table": DECODER + "embed_tokens_per_layer.weight",
    "decoder/layer_inputs/projection": DECODER + "per_layer_model_projection",
    "decoder/layer_inputs/norm": DECODER + "per_layer_projection_norm",
    "decoder/layers/input_gate": DECODER + "layers.*.per_layer_input_gate",
    "decoder/layers/input_out": DECODER + "layers.*.per_layer_projection",
    "decoder/layers/input_post_norm": DECODER + "layers.*.post_per_layer_input_norm",
  }
)

_LINEAR = DECODER + "layers.*.linear_attn."
DECODERS["qwen3_5"] = DecoderNames(
  {
    "decoder/layers/mixer/mix": _LINEAR + "in_proj_qkv",
    "decoder/layers/mixer/open": _LINEAR + "in_proj_z",
    "decoder/layers/mixer/write": _LINEAR + "in_proj_b",
    "decoder/layers/mixer/forget": _LINEAR + "in_proj_a",
    "decoder/layers/mixer/convolution": _LINEAR + "conv1d.weight",
    "decoder/layers/mixer/forget_log": _LINEAR + "A_log",
    "decoder/layers/mixer/forget_bias": _LINEAR + "dt_bias",
    "decoder/layers/mixer/mixed_scale": _LINEAR + "norm.weight",
    "decoder/layers/linear/out": _LINEAR + "out_proj",
  }
)

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
  "qwen3_5": {
    **NAMES,
    "projector/patch_norm": _MERGER + "norm",
    "projector/first": _MERGER + "linear_fc1",
    "projector/second": _MERGER + "linear_fc2",
  },
  "glm4v": {
    **NAMES,
    "projector/first": "visual.downsample",
    "projector/second": _MERGER + "proj",
    "projector/norm": _MERGER + "post_projection_norm",
    "projector/gate": _MERGER + "gate_proj",
    "projector/up": _MERGER + "up_proj",
    "projector/down": _MERGER + "down_proj",
  },
  "mistral3": {
    **NAMES,
    "projector/patch_norm": _PROJECTOR + "norm",
    "projector/narrow": _PROJECTOR + "patch_merger.merging_layer",
  },
  "idefics3": {**NAMES, "projector/first": "connector.modality_projection.proj"},
  # The matrix belongs to no linear layer.
  "gemma3": {
    **NAMES,
    "projector/norm": _PROJECTOR + "mm_soft_emb_norm",
    "projector/first/kernel": _PROJECTOR + "mm_input_projection_weight",
  },
}
MODELS["gemma4"] = {**NAMES, "projector/first": "embed_vision.embedding_projection"}
# By `MllmConfig.names`: the decoder among the modules of a model in transformers 5.
_DECODER_MODULES = {"idefics3": "text_model"}
_HEAD = (r"^language_model\.lm_head\.", "lm_head.")
_WHOLE = "model."
_VISUAL_MODEL = (
  (r"^language_model\.model\.", f"{_WHOLE}language_model."),
  (r"^visual\.", f"{_WHOLE}visual."),
  _HEAD,
)
# By `MllmConfig.names`: the names of exports where they are not the canonical ones.
PUBLISHED: dict[str, tuple[tuple[str, str], ...]] = {
  "qwen2_vl": ((r"^language_model\.model\.", _WHOLE), _HEAD),
  "qwen3_vl": _VISUAL_MODEL,
  "glm4v": _VISUAL_MODEL,
  "qwen3_5": _VISUAL_MODEL,
  "gemma4": (
    (r"^language_model\.model\.", f"{_WHOLE}language_model."),
    (r"^(?=(vision_tower|embed_vision)\.)", _WHOLE),
    _HEAD,
  ),
  "idefics3": (
    (r"^language_model\.model\.", f"{_WHOLE}text_model."),
    (r"^vision_tower\.|^(?=connector\.)", _WHOLE),
    _HEAD,
  ),
}


# Axes of size 1 that tensors with these ends of names have before ours.
LEADING_AXES = {".cls_token": 2, ".mask_token": 1, ".position_embeddings": 1}

# Other forms' names to these. In order: transformers 5 (of a whole model), LLaVA's own
# checkpoints, a decoder alone. A tower's own come after them.
RENAMES = (
  (r"^model\.(language|text)_model\.", DECODER),
  (r"^model\.(vision_tower|multi_modal_projector)\.(?!vision_tower)", r"\1."),
  (r"^model\.image_newline$", "image_newline"),
  (r"^model\.(connector|embed_vision)\.", r"\1."),
  (r"^(model\.)?mm_projector\.0\.", "multi_modal_projector.linear_1."),
  (r"^(model\.)?mm_projector\.2\.", "multi_modal_projector.linear_2."),
  (r"^model\.vision_tower\.vision_tower\.", "vision_tower."),
  (r"^model\.(embed_tokens|layers|norm)\.", DECODER + r"\1."),
  (r"^lm_head\.", "language_model.lm_head."),
)

# Numbers between which a layer clips what it reads and gives; they may be infinite.
BOUNDS = re.compile(r"\.(input|output)_(min|max)$")

# Passed over: buffers that older versions saved, and what LLaVA never runs: the
# text half of a CLIP or SigLIP, its projections, SigLIP's pooling head; and the layer
# by which Qwen3.5 guesses further tokens, which transformers passes over, too.
UNUSED = re.compile(
  r"\.(position_ids|rotary_emb\.inv_freq)$"
  r"|^(text_model|text_projection|visual_projection)\.|^logit_(scale|bias)$"
  r"|^vision_tower\.vision_model\.head\.|^mtp\."
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


def list_fused(decoder: str, tower: str) -> tuple[Fused, ...]:
  """Which tensors of a model are one in some form.

  Args:
    decoder: a key of `DECODERS`.
    tower: a key of `TOWERS`.
  """
  return DECODERS[decoder].fused + TOWERS[tower].fused


def split_fused(name: str, fused: Iterable[Fused]) -> tuple[str, ...]:
  """The canonical names of the parts of a tensor's rows; else its own name alone.

  Args:
    name: a canonical name.
    fused: what `list_fused` gave.
  """
  return next((parts for kind in fused if (parts := kind.split(name))), (name,))


def published_name(name: str, model: str) -> str:
  """The name of a tensor in an export.

  Args:
    name: a canonical name.
    model: a key of `MODELS`.
  """
  for pattern, replacement in PUBLISHED.get(model, ()):
    name = re.sub(pattern, replacement, name)
  return name


def decoder_module(model: str) -> str:
  """The decoder's name among the modules of a model in transformers 5.

  Args:
    model: a key of `MODELS`.
  """
  return _DECODER_MODULES.get(model, "language_model")


def join_fused(name: str, fused: Iterable[Fused]) -> str:
  """The canonical name of the tensor that an export holds a tensor in.

  It is another one where several are one tensor; their rows then follow each other in
  the order of `Fused.parts`.

  Args:
    name: a canonical name.
    fused: what `list_fused` gave.
  """
  for kind in fused:
    name = kind.join(name)
  return name


def module_name(name: str, model: str, decoder: str, tower: str) -> str:
  """The name of a linear layer among the modules of a model in transformers 5.

  Args:
    name: its canonical name.
    model: a key of `MODELS`.
    decoder: a key of `DECODERS`.
    tower: a key of `TOWERS`.
  """
  name = join_fused(name + ".", list_fused(decoder, tower)).removesuffix(".")
  name = name.replace(DECODER, f"{decoder_module(model)}.")
  for pattern, replacement in TOWERS[tower].modules:
    name = re.sub(pattern, replacement, name)
  return name
