"""Shapes and constants of a multimodal model, hashable so that jit sees them."""

import dataclasses

from mllm_selector_jax.models.config_checks import check_activation
from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.lora_options import LoraConfig
from mllm_selector_jax.models.vision_config import VisionConfig
from mllm_selector_jax.types import InputError, Tiling

DTYPES = ("float32", "bfloat16", "float64")
SELECT = ("default", "full")
ATTENTION = ("auto", "xla", "cudnn", "splash")
REMAT = ("none", "full", "dots")
# By `MllmConfig.names`: whose projector is a matrix of no layer.
_BARE_PROJECTORS = ("gemma3",)


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
      channels are joined, row by row,
    pools: or they are averaged (Gemma 3, Gemma 4).
    patch_norm: the kind of a norm that each patch passes before patches are merged,
      one of `NORMS`; None for none (Qwen's).
    projector_norm: the kind of a norm that precedes the projector, one of `NORMS`; None
      for none.
    projector_epsilon: added to the variance, or to the mean square, in these norms.
    projector_width: channels between the projector's two layers; None: as many as the
      decoder's.
    projector_bias: whether these two layers have biases.
    projector_gated: whether the projector ends with a gated MLP of that many channels
      (GLM-4.1V; models/gated_projector.py).
    projector_layers: 1 for a single layer, without an activation (Idefics 3, Gemma 3);
      or 2.
    narrows: whether merged patches are first made as narrow as single ones (Mistral 3).
    deepstack: further vision hidden states, numbered as `feature_layer`, each merged
      and projected on its own (Qwen3-VL). They are added to what leaves the first
      decoder layers, one state to one layer.
    projector_activation: one of `ACTIVATIONS`.
    both_ways: whether tokens of one image see one another in both directions in the
      decoder (Gemma 3). An image is one tile then, or one in its own size;
    both_ways_in_windows: in layers with a window alone (Gemma 4).
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
  pools: bool = False
  patch_norm: str | None = None
  projector_norm: str | None = None
  projector_epsilon: float = 1e-5
  projector_width: int | None = None
  projector_bias: bool = True
  projector_gated: bool = False
  projector_layers: int = 2
  narrows: bool = False
  deepstack: tuple[int, ...] = ()
  projector_activation: str = "gelu"
  both_ways: bool = False
  both_ways_in_windows: bool = False
  newline: bool = False
  names: str = "llava"
  image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
  image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
  dtype: str = "float32"
  remat: str = "none"
  attention: str = "auto"
  lora: LoraConfig | None = None

  def __post_init__(self):
    check_activation("projector", self.projector_activation)
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
    bare = self.names in _BARE_PROJECTORS
    if bare and self.lora is not None and "projector" in self.lora.modules:
      raise InputError(
        "lora.modules names projector, but that of this base is a matrix of no layer,"
        " of which peft loads no adapter. Leave it out: the projector is then trained"
        " whole."
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
    joined = 1 if self.pools else self.merge**2
    return self.vision.width * len(self.projected_states) * joined

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
