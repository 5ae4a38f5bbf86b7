"""Shapes and constants of a decoder."""

import dataclasses
import re

from mllm_selector_jax.models.config_checks import check_activation
from mllm_selector_jax.models.rope import Rope
from mllm_selector_jax.types import InputError

# Kinds of layers with arrays of their own, where a decoder has several.
FULL, WINDOW, LINEAR = "full", "window", "linear"
# Those of layers that read the keys and values of an earlier layer, by its kind.
SHARING = {FULL: "sharing_full", WINDOW: "sharing_window"}
SHARED_KINDS = {sharing: kind for kind, sharing in SHARING.items()}
_KINDS = "|".join((FULL, WINDOW, LINEAR, *SHARED_KINDS))


def split_kind(path: str) -> tuple[str, str]:
  """The path of a parameter without the kind of its layers, and that kind or ""."""
  found = re.search(rf"\blayers/({_KINDS})/", path)
  if found is None:
    return path, ""
  return path[: found.start(1)] + path[found.end() :], found[1]


@dataclasses.dataclass(frozen=True)
class LinearConfig:
  """Sizes of a layer of linear attention, by the gated delta rule (Qwen3.5).

  Attributes:
    key_heads, value_heads: heads of queries and keys, and of values.
    key_dim, value_dim: channels of each.
    taps: tokens that the convolution before it reaches over, its own included.
  """

  key_heads: int
  value_heads: int
  key_dim: int
  value_dim: int
  taps: int

  def __post_init__(self):
    if self.value_heads % self.key_heads:
      raise InputError(
        f"decoder: {self.value_heads} value heads of linear attention"
        f" (linear_num_value_heads) are not a multiple of its {self.key_heads} key"
        " heads (linear_num_key_heads)."
      )

  @property
  def keys(self) -> int:
    """Channels of all keys, and of all queries."""
    return self.key_heads * self.key_dim

  @property
  def values(self) -> int:
    """Channels of all values."""
    return self.value_heads * self.value_dim


@dataclasses.dataclass(frozen=True)
class FullConfig:
  """What layers that see all tokens have of their own, beside windows (Gemma 4).

  Attributes:
    kv_heads, head_dim, query_scale, keys_as_values: as in `DecoderConfig`.
  """

  kv_heads: int
  head_dim: int
  query_scale: float
  keys_as_values: bool


@dataclasses.dataclass(frozen=True)
class LayerInputs:
  """Embeddings that each layer has of its own for each token (Gemma 4 E2B, E4B).

  Attributes:
    width: their channels.
    vocab: rows of their table.
    padding: the row that stands for features of images, which is never trained.
  """

  width: int
  vocab: int
  padding: int


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
    value_norm: whether each head's value passes one, too, without weights (Gemma 4).
    keys_as_values: whether values are the keys, before the norm of either (Gemma 4).
    output_gate: whether what each head's attention gives is multiplied by the sigmoid
      of a gate, which is projected beside the query (Qwen3.5).
    linear: sizes of the layers of linear attention; None: there are none.
    linear_layers: these layers, counted from 0.
    window: tokens that a query sees, itself included; None is all (Mistral).
    full_layers: the layers, counted from 0, in which a query sees all tokens although
      there is a window (Gemma 3, some of Qwen2 and Qwen3).
    full: what differs in these layers, whose arrays then have other shapes; None:
      nothing but the window and the wavelengths.
    window_rope: the rotary wavelengths of the other layers then; None: `rope`.
    activation: of the MLP's gate, one of `ACTIVATIONS`.
    query_scale: by which queries are multiplied besides 1 / sqrt(head_dim).
    embedding_scale: by which token embeddings are multiplied; None: not at all.
    scales_features: whether the features of images are multiplied, too (Granite).
    residual_scale: by which what a layer adds is multiplied (Granite).
    output_scale: by which logits are multiplied (Granite).
    logit_cap: that logits stay below, by a tangens hyperbolicus (Gemma 4); None: none.
    layer_scale: whether a constant of each layer multiplies what leaves it (Gemma 4).
    layer_inputs: what layers are given of each token besides; None for nothing.
    sharing: how many of the last layers have no keys and values: each reads those of
      the last earlier layer of its kind, with a window or without, that has some.
    sharing_mlp: channels of the MLP of these layers; None: as many as of the others.
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
  value_norm: bool = False
  keys_as_values: bool = False
  output_gate: bool = False
  linear: LinearConfig | None = None
  linear_layers: tuple[int, ...] = ()
  window: int | None = None
  full_layers: tuple[int, ...] = ()
  full: FullConfig | None = None
  window_rope: Rope | None = None
  activation: str = "silu"
  query_scale: float = 1.0
  embedding_scale: float | None = None
  scales_features: bool = False
  residual_scale: float = 1.0
  output_scale: float = 1.0
  logit_cap: float | None = None
  layer_scale: bool = False
  layer_inputs: LayerInputs | None = None
  sharing: int = 0
  sharing_mlp: int | None = None
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
    inputs = self.layer_inputs
    if inputs is not None and not (
      inputs.width > 0 and 0 <= inputs.padding < self.vocab <= inputs.vocab
    ):
      raise InputError(
        f"decoder: embeddings by layer of {inputs.vocab} tokens and {inputs.width}"
        f" channels, of which token {inputs.padding} stands for images; there must be"
        f" as many tokens as the vocabulary has, {self.vocab}, that one among them."
      )
    if self.sharing:
      self._check_sharing()
    if bool(self.linear_layers) != (self.linear is not None):
      raise InputError(
        "decoder: layers of linear attention and their sizes go together."
      )
    if len(set(self.linear_layers)) == self.layers:
      raise InputError(
        "decoder: all layers have linear attention; one of full attention is needed."
      )
    if self.full is not None:
      if self.linear is not None or not 0 < len(set(self.full_layers)) < self.layers:
        raise InputError(
          "decoder: heads of two widths need layers with a window and layers without."
        )
      self.of_kind(FULL)  # which checks itself
      (self.window_rope or self.rope).frequencies(self.head_dim)
      return
    self.rope.frequencies(self.head_dim)
    if self.rope.sections:
      self.rope.channel_axes(self.head_dim)

  def _check_sharing(self) -> None:
    if self.full is None:
      raise InputError(
        "decoder: layers that share keys and values must have heads of two widths."
      )
    own, reading = (
      set(part)
      for part in (self.order[: self.owners], self.order[max(0, self.owners) :])
    )
    missing = {SHARED_KINDS[kind] for kind in reading} - own
    if not 0 < self.owners < self.layers or missing:
      raise InputError(
        f"decoder: the last {self.sharing} of {self.layers} layers read keys and values"
        f" of earlier ones, but no earlier one is of their kind"
        f" ({', '.join(sorted(missing))})."
      )

  @property
  def owners(self) -> int:
    """How many layers have keys and values of their own: the first ones."""
    return self.layers - self.sharing

  @property
  def sources(self) -> dict[str, int]:
    """The layers whose keys and values sharing ones read, by the kind of the latter."""
    order = self.order
    last = {kind: number for number, kind in enumerate(order[: self.owners])}
    read = dict.fromkeys(order[self.owners :])
    return {kind: last[SHARED_KINDS[kind]] for kind in read}

  @property
  def order(self) -> tuple[str, ...]:
    """The kind of each layer; nothing where all have arrays of the same shapes."""
    if self.full is not None:
      full = set(self.full_layers)
      kinds = [FULL if n in full else WINDOW for n in range(self.layers)]
      own = max(0, self.owners)
      return (*kinds[:own], *(SHARING[kind] for kind in kinds[own:]))
    if self.linear is None:
      return ()
    linear = set(self.linear_layers)
    return tuple(LINEAR if n in linear else FULL for n in range(self.layers))

  def kind(self, layer: int) -> str:
    """The kind of a layer, "" where all have arrays of the same shapes."""
    return self.order[layer] if self.order else ""

  def of_kind(self, kind: str) -> "DecoderConfig":
    """The config in which layers of a kind find their sizes."""
    if kind in SHARED_KINDS:
      read, mlp = self.of_kind(SHARED_KINDS[kind]), self.sharing_mlp or self.mlp
      return dataclasses.replace(read, mlp=mlp)
    if kind != FULL or self.full is None:
      return self
    own = dataclasses.asdict(self.full)
    return dataclasses.replace(self, full=None, sharing=0, **own)
