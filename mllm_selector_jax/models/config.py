"""Shapes and constants of a multimodal model, hashable so that jit sees them."""

import dataclasses

from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.models.rope import Rope
from mllm_selector_jax.types import InputError, Tiling

ACTIVATIONS = ("gelu", "gelu_pytorch_tanh", "quick_gelu", "silu")
DTYPES = ("float32", "bfloat16", "float64")
SELECT = ("default", "full")
NORMS = ("layer_norm", "rms_norm")
ATTENTION = ("auto", "xla", "cudnn", "splash")
REMAT = ("none", "full", "dots")


def _check_heads(name: str, width: int, heads: int) -> None:
  if width % heads:
    raise InputError(f"{name}: a width of {width} does not divide into {heads} heads.")


def _check_activation(name: str, activation: str) -> None:
  if activation not in ACTIVATIONS:
    raise InputError(
      f"{name}: activation {activation!r} is not one of {', '.join(ACTIVATIONS)}."
    )


@dataclasses.dataclass(frozen=True)
class VisionConfig:
  """A vision transformer: CLIP, SigLIP, InternViT, DINOv2, Pixtral's or one of Qwen's.

  Attributes:
    width, mlp, layers, heads: sizes of the encoder.
    image_size, patch_size: sides of an image and of a patch, in pixels; what is left
      of the image to the right and below the last whole patch is not seen.
    activation: one of `ACTIVATIONS`; "gelu" is the exact one.
    epsilon: added to the variance, or to the mean square, in the norms.
    class_token: whether a learned token stands before the patches.
    pre_norm: whether a norm precedes the first layer.
    patch_bias: whether the patch embedding has a bias.
    qkv_bias: whether query, key and value have biases.
    norm: one of `NORMS`, the kind of the norms inside the layers.
    qk_norm: whether query and key pass an RMS norm over the full width (InternViT-6B).
    layer_scale: whether what each half of a layer adds is multiplied channel by
      channel with a learned vector (InternViT, DINOv2).
    post_norm: whether a norm follows the last layer.
    mask_token: whether the tower holds the token that masked patches had in its
      training, which is never used.
    native: whether images are read in their own sizes, as squares ("tiles") of
      `image_size` pixels whose patches see those of the whole image
      (models/native_tower.py). What follows holds for such towers alone.
    gated: whether the MLP has a gate (Qwen2.5-VL, Pixtral).
    bias: whether attention's output and the MLP have biases; Pixtral's have none.
    alternating: whether rows and columns take turns at the wavelengths (Pixtral).
    frames: frames of a video that a patch reaches over; a still image is all of them.
    position_side: side of the square table of learned positions, which is interpolated
      to the patches of an image; 0 for none (Qwen3-VL).
    window: tiles along the side of the squares of an image within which patches see one
      another; 0: they see the whole image.
    global_layers: the layers, counted from 0, that see the whole image all the same.
    names: the key of `tower_names.TOWERS` for the tensors of a Hugging Face model.
    fused: whether query, key and value are one linear layer in transformers (Qwen's),
      so that the three share an adapter's first matrix.
  """

  width: int
  mlp: int
  layers: int
  heads: int
  image_size: int
  patch_size: int
  activation: str = "quick_gelu"
  epsilon: float = 1e-5
  class_token: bool = True
  pre_norm: bool = True
  patch_bias: bool = False
  qkv_bias: bool = True
  norm: str = "layer_norm"
  qk_norm: bool = False
  layer_scale: bool = False
  post_norm: bool = True
  mask_token: bool = False
  native: bool = False
  gated: bool = False
  bias: bool = True
  alternating: bool = False
  frames: int = 1
  position_side: int = 0
  window: int = 0
  global_layers: tuple[int, ...] = ()
  names: str = "clip"
  fused: bool = False

  def __post_init__(self):
    _check_heads("vision tower", self.width, self.heads)
    if self.native and self.head_dim % 4:
      raise InputError(
        f"vision tower: a head width of {self.head_dim} is not a multiple of 4, so that"
        " it cannot turn by rows and columns."
      )
    if self.norm not in NORMS:
      raise InputError(
        f"vision tower: norm {self.norm!r} is not one of {', '.join(NORMS)}."
      )
    _check_activation("vision tower", self.activation)
    if not 0 < self.patch_size <= self.image_size:
      raise InputError(
        f"vision tower: a patch of {self.patch_size} pixels does not fit an image of"
        f" {self.image_size}."
      )

  @property
  def head_dim(self) -> int:
    """Channels of a head."""
    return self.width // self.heads

  @property
  def grid(self) -> int:
    """Patches along an image's side."""
    return self.image_size // self.patch_size

  @property
  def positions(self) -> int:
    """Places in the encoder's sequence: the patches, and the class token."""
    return self.grid**2 + self.class_token


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """A decoder of the Llama kind, which Mistral, Qwen2, Qwen3 and Gemma 3 are too.

  Attributes:
    vocab, width, mlp, layers, heads, kv_heads, head_dim: sizes.
    rope: the rotary wavelengths.
    qkv_bias: whether query, key and value have biases (Qwen2).
    out_bias: whether attention's output has one too (Llama's attention_bias).
    qk_norm: whether each head's query and key pass an RMS norm before they are
      rotated (Qwen3).
    window: tokens that a query sees, itself included; None is all (Mistral).
    full_layers: the layers, counted from 0, in which a query sees all tokens although
      there is a window (Gemma 3, some of Qwen2 and Qwen3).
    window_rope: the rotary wavelengths of the other layers then; None: `rope`.
    activation: of the MLP's gate, one of `ACTIVATIONS`.
    query_scale: by which queries are multiplied besides 1 / sqrt(head_dim).
    embedding_scale: by which token embeddings are multiplied; None: not at all.
    norm_offset: whether norms multiply by 1 + scale (Gemma).
    post_norms: whether norms follow attention and MLP, too, before each is added.
    names: the key of `tensor_names.DECODERS` for the tensors of a Hugging Face model.
    epsilon: added to the mean square in the norms.
    tied: whether the head is the transposed token embedding.
    max_length: the longest row the model was made for, in tokens.
    limit: what of the base's config cannot be run on longer rows; "" where all can.
  """

  vocab: int
  width: int
  mlp: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  rope: Rope = dataclasses.field(default_factory=Rope)
  qkv_bias: bool = False
  out_bias: bool = False
  qk_norm: bool = False
  window: int | None = None
  full_layers: tuple[int, ...] = ()
  window_rope: Rope | None = None
  activation: str = "silu"
  query_scale: float = 1.0
  embedding_scale: float | None = None
  norm_offset: bool = False
  post_norms: bool = False
  names: str = "llama"
  epsilon: float = 1e-6
  tied: bool = False
  max_length: int = 2048
  limit: str = ""

  def __post_init__(self):
    if self.heads % self.kv_heads:
      raise InputError(
        f"decoder: {self.heads} query heads are not a multiple of {self.kv_heads}"
        " key-value heads."
      )
    if self.head_dim % 2:
      raise InputError(f"decoder: a head width of {self.head_dim} is odd.")
    if self.window is not None and self.window < 1:
      raise InputError(f"decoder: a window of {self.window} tokens sees nothing.")
    _check_activation("decoder", self.activation)
    if self.rope.sections:
      self.rope.channel_axes(self.head_dim)


@dataclasses.dataclass(frozen=True)
class MllmConfig:
  """Vision tower, projector and decoder together.

  Attributes:
    vision, decoder: the two towers.
    image_token: id of the token that stands for one feature of an image.
    feature_layer: the vision hidden state that is projected; 0 is what enters
      the first layer, -1 what leaves the last. A tuple joins the channels of several
      states, in its order (VipLLaVA).
    select: "default" leaves out the first place of each state, which is the
      class token where there is one; "full" takes all places.
    feature_norm: whether that state passes the tower's final norm (InternVL without
      mean pooling).
    merge: side of the square blocks of patches that become one feature each: their
      channels are joined, row by row.
    patch_norm: the kind of a norm that each patch passes before patches are merged,
      one of `NORMS`; None for none (Qwen's).
    projector_norm: whether a layer norm precedes the projector.
    projector_epsilon: added to the variance, or to the mean square, in these norms.
    projector_width: channels between the projector's two layers; None: as many as the
      decoder's.
    projector_bias: whether these two layers have biases.
    projector_layers: 1 for a single layer, without an activation (Idefics 3); or 2.
    narrows: whether merged patches are first made as narrow as single ones (Mistral 3).
    deepstack: further vision hidden states, numbered as `feature_layer`, each merged
      and projected on its own (Qwen3-VL). They are added to what leaves the first
      decoder layers, one state to one layer.
    projector_activation: one of `ACTIVATIONS`.
    newline: whether there is a learned vector that ends the rows of an image's
      features (LLaVA-NeXT).
    names: the key of `tensor_names.MODELS` for the tensors of projector and decoder
      in a Hugging Face model.
    image_mean, image_std: channel statistics of pixels scaled to [0, 1].
    dtype: of the computation; parameters, norms and softmax are float32.
    remat: one of `REMAT`, what the backward pass recomputes: nothing, or all of a
      block but its input, or all but its input and its matrix products.
    attention: one of `ATTENTION`, the kernel; see models/attention.py.
    lora: adapters of linear layers, which are parameters then; None for none.
  """

  vision: VisionConfig
  decoder: DecoderConfig
  image_token: int
  feature_layer: int | tuple[int, ...] = -2
  select: str = "default"
  feature_norm: bool = False
  merge: int = 1
  patch_norm: str | None = None
  projector_norm: bool = False
  projector_epsilon: float = 1e-5
  projector_width: int | None = None
  projector_bias: bool = True
  projector_layers: int = 2
  narrows: bool = False
  deepstack: tuple[int, ...] = ()
  projector_activation: str = "gelu"
  newline: bool = False
  names: str = "llava"
  image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
  image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
  dtype: str = "float32"
  remat: str = "none"
  attention: str = "auto"
  lora: LoraConfig | None = None

  def __post_init__(self):
    _check_activation("projector", self.projector_activation)
    if self.dtype not in DTYPES:
      raise InputError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}.")
    if self.attention not in ATTENTION:
      raise InputError(
        f"attention {self.attention!r} is not one of {', '.join(ATTENTION)}."
      )
    if self.remat not in REMAT:
      raise InputError(f"remat {self.remat!r} is not one of {', '.join(REMAT)}.")
    if self.select not in SELECT:
      raise InputError(
        f"vision_feature_select_strategy {self.select!r} is not one of"
        f" {', '.join(SELECT)}."
      )
    states = self.projected_states
    if not states or min(states) < 0 or max(states) > self.vision.layers:
      raise InputError(
        f"vision_feature_layer is {self.feature_layer}, but the vision tower has"
        f" {self.vision.layers} layers."
      )
    if len(self.deepstack) > self.decoder.layers or not all(
      0 < state <= self.vision.layers for state in self.deepstack
    ):
      raise InputError(
        f"deepstack_visual_indexes names {len(self.deepstack)} layers, the last of them"
        f" {max(self.deepstack) - 1}, counted from 0, but the vision tower has"
        f" {self.vision.layers} layers and the decoder {self.decoder.layers}."
      )
    if self.feature_norm and len(states) > 1:
      raise InputError(
        f"vision_feature_layer is {self.feature_layer}, but the tower's final norm can"
        " be applied to a single layer only."
      )
    if self.merge > 1 and self.vision.grid % self.merge:
      raise InputError(
        f"{self.vision.grid} patches along an image's side do not divide into blocks of"
        f" {self.merge}, as downsample_ratio asks."
      )
    square = self.vision.grid**2
    if (self.merge > 1 or self.newline) and self.features != square:
      raise InputError(
        f"vision_feature_select_strategy {self.select!r} makes {self.features} features"
        f" of {square} patches, but they must stay a square here."
      )
    if not 0 <= self.image_token < self.decoder.vocab:
      raise InputError(
        f"the image token's id {self.image_token} lies outside the vocabulary of"
        f" {self.decoder.vocab}."
      )

  @property
  def features(self) -> int:
    """Features that the vision tower gives for one tile."""
    return self.vision.positions - (self.select == "default")

  @property
  def patches(self) -> int:
    """Features of one tile after merging: the image tokens of an image of one tile."""
    return self.features // self.merge**2

  @property
  def tiling(self) -> Tiling:
    """What decides the arrays of a batch."""
    axes = bool(self.decoder.rope.sections)
    return Tiling(self.patches, self.vision.image_size, self.vision.native, axes)

  @property
  def merged_width(self) -> int:
    """Channels of a block of merged patches."""
    return self.vision.width * len(self.projected_states) * self.merge**2

  @property
  def projected_width(self) -> int:
    """Channels of a feature that enters the projector."""
    return self.vision.width if self.narrows else self.merged_width

  @property
  def projected_states(self) -> tuple[int, ...]:
    """The vision hidden states that are projected, counted from 0."""
    layers = self.feature_layer
    layers = (layers,) if isinstance(layers, int) else layers
    return tuple(n if n >= 0 else self.vision.layers + 1 + n for n in layers)

  @property
  def vision_layers(self) -> int:
    """Vision layers that have to run to reach all projected hidden states."""
    return max(self.projected_states)
