"""Shapes and constants of a vision tower."""

import dataclasses

from mllm_selector_jax.models.config_checks import NORMS, check_activation, check_heads
from mllm_selector_jax.models.rope import PATCH_THETA
from mllm_selector_jax.types import InputError

# Of numbers between which a linear layer clips what it reads and gives.
BOUND_NAMES = ("input_min", "input_max", "output_min", "output_max")


@dataclasses.dataclass(frozen=True)
class VisionConfig:
  """A vision transformer: CLIP, SigLIP, InternViT, DINOv2, Pixtral's, Qwen's or GLM's.

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
    gated: whether the MLP has a gate (Qwen2.5-VL, Pixtral, GLM-4.1V).
    bias: whether attention's output and the MLP have biases; Pixtral's and GLM-4.1V's
      have none.
    alternating: whether rows and columns take turns at the wavelengths (Pixtral).
    theta: base of the wavelengths.
    halves: whether the first half of a head's channels turns with the column, and the
      second with the row, each in pairs of its own (Gemma 4); otherwise the first half
      of all pairs turns with the row.
    post_norms: whether norms follow attention and MLP, too, and queries, keys and
      values pass norms a head, scores then being left undivided (Gemma 4).
    patch_linear: whether the patch embedding is a linear layer in transformers, and no
      convolution (Gemma 4).
    position_table: rows of two tables of learned positions, one by which a patch's
      column is looked up and one for its row (Gemma 4); 0 for none.
    standardized: whether features are multiplied by the root of the width, and then
      standardised by constants (some of Gemma 4); None: neither.
    clipped: whether each linear layer clips what it reads and gives, at constants of
      its own (Gemma 4 E2B, E4B).
    frames: frames of a video that a patch reaches over; a still image is all of them.
    position_side: side of the square table of learned positions, which is interpolated
      to the patches of an image; 0 for none (Qwen3-VL, GLM-4.1V).
    bicubic: whether it is interpolated from 16 positions, as pixels are (GLM-4.1V);
      otherwise from 4, the table's corners lying on those of the image (Qwen3-VL).
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
  theta: float = PATCH_THETA
  halves: bool = False
  post_norms: bool = False
  patch_linear: bool = False
  position_table: int = 0
  standardized: bool | None = None
  clipped: bool = False
  frames: int = 1
  position_side: int = 0
  bicubic: bool = False
  window: int = 0
  global_layers: tuple[int, ...] = ()
  names: str = "clip"
  fused: bool = False

  def __post_init__(self):
    check_heads("vision tower", self.width, self.heads)
    if self.native and self.head_dim % 4:
      raise InputError(
        f"vision tower: a head width of {self.head_dim} is not a multiple of 4, so that"
        " it cannot turn by rows and columns."
      )
    if self.norm not in NORMS:
      raise InputError(
        f"vision tower: norm {self.norm!r} is not one of {', '.join(NORMS)}."
      )
    check_activation("vision tower", self.activation)
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
