"""What a command imports as it goes, for the process that others are forked from."""

import grain  # noqa: F401
import pyarrow.parquet  # noqa: F401
import transformers
from jax.experimental import multihost_utils  # noqa: F401

from mllm_selector_jax import main  # noqa: F401
from mllm_selector_jax.configs import demo  # noqa: F401

# transformers imports the rest of itself when a name is first used.
LAZY = [
  transformers.AutoConfig,
  transformers.AutoImageProcessor,
  transformers.AutoTokenizer,
  transformers.LlavaConfig,
  transformers.CLIPVisionConfig,
  transformers.LlamaConfig,
  transformers.models.llava.LlavaImageProcessorPil,
]
