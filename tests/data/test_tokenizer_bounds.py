"""Regular expressions of a hostile tokenizer.json, and panics of the library."""

import time

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from mllm_selector_jax.data.tokens import tokenizer_bounds
from mllm_selector_jax.data.tokens.conversation import make_encoder
from mllm_selector_jax.data.tokens.text_encoder import TextEncoder
from mllm_selector_jax.types import InputError
from tests.fixed_images import fixed_images
from tests.models import tiny

HOSTILE = (
  r"(a+)+$",
  r"(a|aa)+$",
  r"([^x]*)*y",
  r"\d*\d*\d*\d*\d*z",
  r"(\s+)+\S\S\S",
  "(\u0192+)+$",
)
# Of GPT-2, of Qwen, of GPT-4o, of DeepSeek, and of Bloom.
PUBLISHED = (
  r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
  r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
  r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
  r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
  r" ?[^(\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+",
)


def split_by(expression):
  return pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")


@pytest.mark.parametrize("expression", HOSTILE)
@pytest.mark.parametrize("part", ["pre_tokenizer", "normalizer"])
def test_an_expression_that_takes_too_long_is_refused(expression, part, monkeypatch):
  monkeypatch.setattr(tokenizer_bounds, "MOST_SECONDS", 0.05)
  tokenizer = tiny.make_tokenizer()
  core = tokenizer.backend_tokenizer
  if part == "pre_tokenizer":
    core.pre_tokenizer = pre_tokenizers.Sequence(
      [core.pre_tokenizer, split_by(expression)]
    )
  else:
    core.normalizer = normalizers.Replace(tokenizers.Regex(expression), "a")
  start = time.thread_time()
  with pytest.raises(InputError, match="regular expression"):
    make_encoder("vicuna_v1", tokenizer, fixed_images(4, 4), 64)
  assert time.thread_time() - start < 20


@pytest.mark.parametrize("expression", PUBLISHED)
def test_published_expressions_are_taken(expression, monkeypatch):
  monkeypatch.setattr(tokenizer_bounds, "MOST_SECONDS", 0.1)
  state = {"pre_tokenizer": {"pretokenizers": [{"pattern": {"Regex": expression}}]}}
  tokenizer_bounds._check_expression.cache_clear()
  tokenizer_bounds.check_expressions(state)


def test_a_panic_while_a_row_is_encoded_is_one_message():
  core = tokenizers.Tokenizer(models.WordLevel({"a": 0, "u": 1}, unk_token="u"))
  core.pre_tokenizer = split_by(HOSTILE[0])
  encoder = TextEncoder(core, core)
  with pytest.raises(InputError, match=r"tokenizer fails on a text.*retry-limit"):
    encoder.encode("a" * 50 + "!", False)
  with pytest.raises(InputError, match="tokenizer fails on a text"):
    encoder.encode_batches(["b", "a" * 50 + "!"], [])
  with pytest.raises(KeyboardInterrupt), tokenizer_bounds.explaining_failures():
    raise KeyboardInterrupt
