"""Models of several sizes for the scoring benchmark, the same for both sides."""

import copy
import functools
from typing import Any

import jax
import jax.numpy as jnp
import transformers

from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.axes import path_name
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping
from mllm_selector_jax.models.huggingface.decoder_families import read_decoder
from mllm_selector_jax.models.huggingface.tower_families import read_tower
from mllm_selector_jax.types import Params

IMAGE_TOKEN = 4  # of the tokenizer of demo/make_base.py

# (vision, decoder) as transformers names it; the image's side comes with the run.
SIZES = {
  "tiny": (
    {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2},
    {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
  ),
  "small": (
    {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4},
    {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4},
  ),
  "medium": (
    {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4},
    {"hidden_size": 256, "num_hidden_layers": 5, "num_attention_heads": 4},
  ),
  "1b": (
    {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    {"hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 16},
  ),
  "3b": (
    {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    {"hidden_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 32},
  ),
  "7b": (
    {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32},
  ),
}
MLP = {"tiny": 176, "small": 512, "medium": 688, "1b": 5632, "3b": 6912, "7b": 11008}
# Otherwise 1024, what the demo's tokenizer needs.
VOCAB = {"1b": 32064, "3b": 32064, "7b": 32064}


def make_hf_config(size: str, side: int, patch: int) -> Any:
  """A LlavaConfig with images of `side` pixels, cut into patches of `patch`."""
  vision, decoder = SIZES[size]
  vocab = VOCAB.get(size, 1024)
  return transformers.LlavaConfig(
    vision_config=transformers.CLIPVisionConfig(
      **vision,
      intermediate_size=4 * vision["hidden_size"],
      image_size=side,
      patch_size=patch,
      projection_dim=vision["hidden_size"],
    ),
    text_config=transformers.LlamaConfig(
      **decoder,
      num_key_value_heads=decoder["num_attention_heads"],
      intermediate_size=MLP[size],
      vocab_size=vocab,
      max_position_embeddings=4096,
      rms_norm_eps=1e-5,
      bos_token_id=1,
      eos_token_id=2,
      pad_token_id=3,
      use_cache=False,
    ),
    image_token_index=IMAGE_TOKEN,
    image_seq_length=(side // patch) ** 2,
  )


def make_config(hf_config: Any, dtype: str, remat: str = "none") -> MllmConfig:
  """Ours of it."""
  return MllmConfig(
    read_tower(hf_config.vision_config),
    read_decoder(hf_config.text_config, tied=False),
    image_token=IMAGE_TOKEN,
    dtype=dtype,
    remat=remat,
  )


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _draw(key, shape, dtype, scale):
  return jax.random.normal(key, shape, dtype) * jnp.asarray(scale, dtype)


def draw_params(config: MllmConfig, seed: int = 0) -> Params:
  """Random parameters, made on the device in the computation's type."""
  leaves, structure = jax.tree_util.tree_flatten_with_path(mllm.abstract(config))
  dtype = jnp.dtype(config.dtype)
  arrays = []
  for key, (path, leaf) in zip(
    jax.random.split(jax.random.key(seed), len(leaves)), leaves, strict=True
  ):
    kind = path_name(path).rpartition("/")[2]
    if kind in ("scale", "bias"):
      arrays.append(jnp.full(leaf.shape, kind == "scale", dtype))
    else:
      inputs = leaf.shape[-2] if kind in ("kernel", "head") else leaf.shape[-1]
      arrays.append(_draw(key, leaf.shape, dtype, float(inputs**-0.5)))
  return jax.tree.unflatten(structure, arrays)


def make_torch_model(hf_config: Any, config: MllmConfig, params: Params) -> Any:
  """A LLaVA of transformers with these parameters, copied on the device."""
  import torch

  dtype = getattr(torch, config.dtype)
  device = "cpu" if jax.default_backend() == "cpu" else "cuda"
  with torch.device(device):
    model = transformers.LlavaForConditionalGeneration._from_config(
      copy.deepcopy(hf_config), dtype=dtype, attn_implementation="sdpa"
    )
  state = model.state_dict()
  leaves = zip(mapping.list_leaves(config), jax.tree.leaves(params), strict=True)
  for leaf, array in leaves:
    for layer, name in enumerate(leaf.names):
      name = name.replace("vision_tower.vision_model.", "vision_tower.")
      name = name.replace("language_model.model.", "language_model.")
      name = name.replace("language_model.lm_head", "lm_head")
      name = name if name.startswith("lm_head") else f"model.{name}"
      part = leaf.to_theirs(array[layer] if leaf.stacked else array)
      state.pop(name).copy_(torch.from_dlpack(part))
  assert not state, sorted(state)
  return model.eval()
