"""Shapes and constants of a decoder."""

import dataclasses

from mllm_selector_jax.models.config_checks import check_activation
from mllm_selector_jax.models.rope import Rope
from mllm_selector_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """A decoder of the Llama kind, as all of `huggingface.decoder_families` are.

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
    scales_features: whether the features of images are multiplied, too (Granite).
    residual_scale: by which what a layer adds is multiplied (Granite).
    output_scale: by which logits are multiplied (Granite).
    norm_offset: whether norms multiply by 1 + scale (Gemma).
    post_norms: whether norms follow attention and MLP, too, before each is added.
    fused: names of `lora.SHARED` whose layers are one in transformers, so that they
      share an adapter's first matrix (Phi-3, GLM-4).
    experts: MLPs of a layer of which each token passes a few, each of `mlp` channels; 0
      for a single one, which all tokens pass.
    experts_per_token: how many of them a token passes.
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
  scales_features: bool = False
  residual_scale: float = 1.0
  output_scale: float = 1.0
  norm_offset: bool = False
  post_norms: bool = False
  fused: tuple[str, ...] = ()
  experts: int = 0
  experts_per_token: int = 0
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
    if self.experts and not 0 < self.experts_per_token <= self.experts:
      raise InputError(
        f"decoder: a token passes {self.experts_per_token} of {self.experts} experts;"
        " it may be 1 to all of them."
      )
    if self.window is not None and self.window < 1:
      raise InputError(f"decoder: a window of {self.window} tokens sees nothing.")
    check_activation("decoder", self.activation)
    self.rope.frequencies(self.head_dim)
    if self.rope.sections:
      self.rope.channel_axes(self.head_dim)
