"""Qwen3-VL with a mixture of experts as its decoder, in the form of transformers."""

import dataclasses
from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.field_checks import require
from mllm_selector_jax.models.huggingface.model_families import qwen3_vl_family
from mllm_selector_jax.models.huggingface.model_families.qwen2_vl_family import (
  describe_older,
  read_text_of_qwen3,
)
from mllm_selector_jax.types import InputError


def _read_decoder(config: Any, **fields: Any) -> DecoderConfig:
  """Our decoder config: every layer has experts, which are narrower than an MLP."""
  require("text_config", config, mlp_only_layers=[], decoder_sparse_step=1)
  if 2 * config.moe_intermediate_size == config.hidden_size:
    # Files hold an expert's matrices as they are, or transposed, as transformers 4
    # and 5 write them; only their shapes say which.
    raise InputError(
      f"text_config.moe_intermediate_size is {config.moe_intermediate_size}, half of"
      f" hidden_size, so that gate_up_proj does not show whether it is transposed"
    )
  fields |= {
    "experts": config.num_experts,
    "experts_per_token": config.num_experts_per_tok,
    "names": "qwen3_moe",
  }
  decoder = read_text_of_qwen3(config, **fields)
  return dataclasses.replace(decoder, mlp=config.moe_intermediate_size)


def _describe_config(value: dict[str, Any]) -> dict[str, Any]:
  """config.json with the name that version 4 has for the number of experts."""
  value = describe_older(value)
  text = value["text_config"]
  text["num_experts"] = text.pop("num_local_experts", text.get("num_experts"))
  return value


FAMILY = dataclasses.replace(
  qwen3_vl_family.FAMILY,
  architecture="Qwen3VLMoeForConditionalGeneration",
  read_decoder=_read_decoder,
  describe_config=_describe_config,
)
