"""The names of tensors in Hugging Face models, and which of our parameters they are.

The names are those that transformers 4 wrote, which versions 4 and 5 both load; the
names of other forms are brought to these first.
"""

import re

from mllm_selector_jax.models.huggingface.tower_names import TOWERS

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

# By `DecoderConfig.names`: what differs from `NAMES`.
DECODERS: dict[str, dict[str, str]] = {
  "llama": {},
  "gemma3": {
    "decoder/layers/attention_post_norm": DECODER + "layers.*.post_attention_layernorm",
    "decoder/layers/mlp_norm": DECODER + "layers.*.pre_feedforward_layernorm",
    "decoder/layers/mlp_post_norm": DECODER + "layers.*.post_feedforward_layernorm",
  },
}

_LINEAR = DECODER + "layers.*.linear_attn."
DECODERS["qwen3_5"] = {
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
  "mistral3": {
    **NAMES,
    "projector/patch_norm": _PROJECTOR + "norm",
    "projector/narrow": _PROJECTOR + "patch_merger.merging_layer",
  },
  "idefics3": {**NAMES, "projector/first": "connector.modality_projection.proj"},
}
# By `MllmConfig.names`: the decoder among the modules of a model in transformers 5.
_DECODER_MODULES = {"idefics3": "text_model"}
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
  "qwen3_5": (
    (r"^language_model\.model\.", f"{_WHOLE}language_model."),
    (r"^visual\.", f"{_WHOLE}visual."),
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
  (r"^model\.connector\.", "connector."),
  (r"^(model\.)?mm_projector\.0\.", "multi_modal_projector.linear_1."),
  (r"^(model\.)?mm_projector\.2\.", "multi_modal_projector.linear_2."),
  (r"^model\.vision_tower\.vision_tower\.", "vision_tower."),
  (r"^model\.(embed_tokens|layers|norm)\.", DECODER + r"\1."),
  (r"^lm_head\.", "language_model.lm_head."),
)

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


def decoder_module(model: str) -> str:
  """The decoder's name among the modules of a model in transformers 5.

  Args:
    model: a key of `MODELS`.
  """
  return _DECODER_MODULES.get(model, "language_model")


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


def module_name(name: str, model: str, tower: str) -> str:
  """The name of a linear layer among the modules of a model in transformers 5.

  Args:
    name: its canonical name.
    model: a key of `MODELS`.
    tower: a key of `TOWERS`.
  """
  name = name.replace(DECODER, f"{decoder_module(model)}.")
  name = join_fused(name + ".", tower).removesuffix(".")
  for pattern, replacement in TOWERS[tower].modules:
    name = re.sub(pattern, replacement, name)
  return name
