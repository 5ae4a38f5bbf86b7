"""What the tokenizers of Gemma 3 and Gemma 4 have in common, for tests."""

import json
from collections.abc import Mapping, Sequence

import transformers
from tokenizers import processors

from tests.llama_like import make_state


def make_tokenizer(
  named: Mapping[str, str], others: Sequence[str], source: str | None
) -> transformers.GemmaTokenizer:
  """A tokenizer of Gemma's class.

  Args:
    named: special tokens that the family's processor finds by a name.
    others: further special tokens.
    source: the chat template.
  """
  model = json.loads(make_state("first"))["model"]
  tokenizer = transformers.GemmaTokenizer(
    vocab=model["vocab"],
    merges=[tuple(merge) for merge in model["merges"]],
    bos_token="<bos>",
    eos_token="<eos>",
    extra_special_tokens=dict(named),
  )
  tokenizer.add_special_tokens({"additional_special_tokens": list(others)})
  tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
    single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
  )
  tokenizer.chat_template = source
  return tokenizer
