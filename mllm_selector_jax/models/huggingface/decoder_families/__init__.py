"""The decoders that can be run, by the model_type of their transformers config.

Each takes the family's transformers config and gives ours. A new decoder is a file and
a line of `DECODERS`; docs/families.md says what else to look at.
"""

from collections.abc import Callable
from typing import Any

from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.huggingface.decoder_families.gemma3_decoder import (
  read_gemma3,
)
from mllm_selector_jax.models.huggingface.decoder_families.gemma4_decoder import (
  read_gemma4,
)
from mllm_selector_jax.models.huggingface.decoder_families.glm_decoder import read_glm4
from mllm_selector_jax.models.huggingface.decoder_families.granite_decoder import (
  read_granite,
)
from mllm_selector_jax.models.huggingface.decoder_families.llama_decoder import (
  read_llama,
)
from mllm_selector_jax.models.huggingface.decoder_families.mistral_decoder import (
  read_ministral3,
  read_mistral,
)
from mllm_selector_jax.models.huggingface.decoder_families.phi3_decoder import read_phi3
from mllm_selector_jax.models.huggingface.decoder_families.qwen3_5_decoder import (
  read_qwen3_5,
)
from mllm_selector_jax.models.huggingface.decoder_families.qwen_decoder import (
  read_qwen2,
  read_qwen3,
)
from mllm_selector_jax.models.huggingface.field_checks import find_reader

DECODERS: dict[str, Callable[..., DecoderConfig]] = {
  "llama": read_llama,
  "mistral": read_mistral,
  "qwen2": read_qwen2,
  "qwen3": read_qwen3,
  "qwen3_5_text": read_qwen3_5,
  "ministral3": read_ministral3,
  "gemma3_text": read_gemma3,
  "gemma4_text": read_gemma4,
  "phi3": read_phi3,
  "granite": read_granite,
  "glm4": read_glm4,
}


def read_decoder(config: Any, **fields: Any) -> DecoderConfig:
  """Our decoder config from a transformers one.

  Args:
    config: of a family in `DECODERS`.
    **fields: of DecoderConfig that the whole model's config decides.

  Raises:
    InputError: another family, or something of it that cannot be run.
  """
  return find_reader("text_config", config, DECODERS)(config, **fields)
