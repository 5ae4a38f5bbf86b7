"""The names of vision towers' tensors in Hugging Face models; see `tensor_names`."""

from typing import NamedTuple

from mllm_selector_jax.models.vision_config import BOUND_NAMES

_PROJECTOR = "multi_modal_projector."
_CLIP = "vision_tower.vision_model."
_LAYERS = "vision_tower.encoder.layer.*."
_BLOCKS = "visual.blocks.*."


class Fused(NamedTuple):
  """Tensors of linear layers that are one layer, and one tensor, in transformers.

  Attributes:
    whole: end of the name of a tensor that holds the rows of several.
    parts: ends of the names of these, in the order of the rows.
    joined: whether exports hold them as one tensor, too.
    part_of: beginning of the names of all of them.
  """

  whole: str
  parts: tuple[str, ...]
  joined: bool = True
  part_of: str = ""

  def split(self, name: str) -> tuple[str, ...]:
    """The names of the parts of a tensor; none of another one."""
    if not name.startswith(self.part_of) or self.whole not in name:
      return ()
    return tuple(name.replace(self.whole, part) for part in self.parts)

  def join(self, name: str) -> str:
    """The name of the tensor of an export that a tensor's rows are in."""
    if self.joined and name.startswith(self.part_of):
      for part in self.parts:
        name = name.replace(part, self.whole)
    return name


class Tower(NamedTuple):
  """The names of a vision tower's tensors.

  Attributes:
    names: as `NAMES`.
    renames: from the names of other forms to these, as `RENAMES`.
    fused: which of the tensors are one in some form.
    modules: from these names to those that the modules have in transformers 5.
  """

  names: dict[str, str]
  renames: tuple[tuple[str, str], ...] = ()
  fused: tuple[Fused, ...] = ()
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
  fused=(
    Fused(
      ".attention.qkv.",
      (".attention.q_proj.", ".attention.k_proj.", ".attention.v_proj."),
      joined=False,
    ),
  ),
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

IDEFICS3 = Tower(
  names={ours: name for ours, name in CLIP.names.items() if "class" not in ours},
  renames=((r"^(model\.)?vision_model\.", _CLIP),),
  modules=((r"^vision_tower\.", ""),),
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
  """A tower of Qwen's or GLM's, whose MLP has linear layers of these names."""
  own = {f"vision/layers/{ours}": _BLOCKS + name for ours, name in names.items()}
  return Tower(
    names={**_VISUAL, **own},
    # Transformers 5, and fine-tuned models.
    renames=((r"^model\.visual\.", "visual."),),
    fused=(Fused(".attn.qkv.", (".attn.q.", ".attn.k.", ".attn.v.")),),
  )


QWEN2_VL = _make_visual(up="mlp.fc1", down="mlp.fc2")
QWEN2_5_VL = _make_visual(gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj")
QWEN3_VL = _make_visual(up="mlp.linear_fc1", down="mlp.linear_fc2")
QWEN3_VL.names["vision/position_embedding"] = "visual.pos_embed.weight"

GLM4V = _make_visual(gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj")
GLM4V.names.update(
  {
    "vision/pre_norm": "visual.post_conv_layernorm",
    "vision/position_embedding": "visual.embeddings.position_embedding.weight",
    "vision/post_norm": "visual.post_layernorm",
  }
)

_GEMMA4 = "vision_tower.encoder.layers.*."
# Linear layers, each of which may be one inside of a module that clips.
_GEMMA4_LINEAR = {
  "query": "self_attn.q_proj",
  "key": "self_attn.k_proj",
  "value": "self_attn.v_proj",
  "out": "self_attn.o_proj",
  "gate": "mlp.gate_proj",
  "up": "mlp.up_proj",
  "down": "mlp.down_proj",
}
GEMMA4 = Tower(
  names={
    "vision/patch_embedding": "vision_tower.patch_embedder.input_proj",
    "vision/position_table": "vision_tower.patch_embedder.position_embedding_table",
    "vision/standard_bias": "vision_tower.std_bias",
    "vision/standard_scale": "vision_tower.std_scale",
    "vision/layers/attention_norm": _GEMMA4 + "input_layernorm",
    "vision/layers/query_norm": _GEMMA4 + "self_attn.q_norm",
    "vision/layers/key_norm": _GEMMA4 + "self_attn.k_norm",
    "vision/layers/attention_post_norm": _GEMMA4 + "post_attention_layernorm",
    "vision/layers/mlp_norm": _GEMMA4 + "pre_feedforward_layernorm",
    "vision/layers/mlp_post_norm": _GEMMA4 + "post_feedforward_layernorm",
    **{
      f"vision/layers/{ours}": f"{_GEMMA4}{name}.linear"
      for ours, name in _GEMMA4_LINEAR.items()
    },
    **{
      f"vision/layers/{ours}_bounds/{bound}": f"{_GEMMA4}{name}.{bound}"
      for ours, name in _GEMMA4_LINEAR.items()
      for bound in BOUND_NAMES
    },
  },
)

# By `VisionConfig.names`.
TOWERS: dict[str, Tower] = {
  "clip": CLIP,
  "internvl_vision": INTERN_VIT,
  "dinov2": DINOV2,
  "qwen2_vl": QWEN2_VL,
  "qwen2_5_vl": QWEN2_5_VL,
  "qwen3_vl": QWEN3_VL,
  "glm4v": GLM4V,
  "pixtral": PIXTRAL,
  "idefics3": IDEFICS3,
  "gemma4": GEMMA4,
}
