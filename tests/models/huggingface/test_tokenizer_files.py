"""Tokenizers in every form that bases have them, read and written."""

import logging

import hypothesis
import pytest
import sentencepiece
import transformers
from hypothesis import strategies as st

from benchmarks.pool_columns import bind_images
from mllm_selector_jax.data.tokens import conversation
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface import tokenizer_files
from mllm_selector_jax.types import InputError
from tests import tokenizers_on_the_spot
from tests.fixed_images import ONE_IMAGE
from tests.models import tiny
from tests.models.huggingface import loose

TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}"


@pytest.fixture(scope="module", params=["LlamaTokenizer", None])
def converted(request, tmp_path_factory):
  """A folder with tokenizer.model alone, and its tokenizer as we read it."""
  folder = tmp_path_factory.mktemp("spm")
  tokenizers_on_the_spot.write_sentencepiece(folder)
  if request.param is None:
    (folder / "tokenizer_config.json").unlink()
  return folder, tokenizer_files.load_tokenizer(folder)


@hypothesis.given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
@hypothesis.example("What colour is the circle? red  blue")
@hypothesis.example("é, ß 猫\n two\n\n lines")
def test_a_tokenizer_model_gives_sentencepiece_s_own_tokens(converted, text):
  folder, tokenizer = converted
  model = sentencepiece.SentencePieceProcessor(
    model_file=str(folder / "tokenizer.model")
  )
  hypothesis.assume("\u2581" not in text and not text.startswith(" "))
  # Names of special tokens are those tokens, as everywhere in transformers.
  hypothesis.assume(not any(name in text for name in tokenizer.all_special_tokens))
  found = tokenizer(text, add_special_tokens=False)["input_ids"]
  assert found == model.encode(text)


def test_a_decoder_with_a_tokenizer_model_alone_becomes_a_base(tmp_path):
  # As Vicuna 1.5 is published.
  decoder, out = tmp_path / "vicuna", tmp_path / "base"
  loose.save_decoder(decoder, vocab_size=400)
  count = tokenizers_on_the_spot.write_sentencepiece(decoder, add_bos_token=True)
  loose.save_tower(tmp_path / "clip")
  config = huggingface.assemble(out, decoder, tmp_path / "clip")
  assert config.image_token == count
  source, options = huggingface.read_processor(out)
  model = sentencepiece.SentencePieceProcessor(
    model_file=str(decoder / "tokenizer.model")
  )
  for text in ("What colour is it?", "USER: a\nb ASSISTANT: two"):
    assert source(text)["input_ids"] == [1, *model.encode(text)]
  assert source("<image>", add_special_tokens=False)["input_ids"] == [count]
  encoder = conversation.make_encoder(
    "vicuna_v1", source, bind_images(config, options), 256
  )
  talk = [
    {"from": "human", "value": "<image>\nWhat colour is it?"},
    {"from": "gpt", "value": "red"},
  ]
  sample = encoder.encode(talk, ONE_IMAGE)
  supervised = sample.tokens[sample.supervised].tolist()
  assert supervised == [*model.encode("red"), source.eos_token_id]


def test_a_base_with_a_tokenizer_model_alone_is_read_and_written(tmp_path):
  base = tiny.make_base(tmp_path / "base", vocab_size=400, llava_image_token_index=3)
  symbols = ("<image>", "<pad>")
  tokenizers_on_the_spot.write_sentencepiece(base, symbols, pad_token="<pad>")
  config = huggingface.read_config(base)
  tokenizer, _ = huggingface.read_processor(base)
  assert config.image_token == tokenizer.convert_tokens_to_ids("<image>") == 3
  out = tmp_path / "out"
  huggingface.write_model(out, config, huggingface.read_params(base, config), base)
  again = transformers.AutoTokenizer.from_pretrained(out)
  text = "<s><image>\nWhat colour is the circle? </s>"
  assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
  assert (out / "tokenizer.model").read_bytes() == (
    base / "tokenizer.model"
  ).read_bytes()


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"IQ== 0\nIg== 1\nIw== 2\n", "in tiktoken's form"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    (b"\x00\x01 nothing of the kind", "no sentencepiece model"),
    (b"", "no sentencepiece model"),
  ],
)
def test_another_tokenizer_model_is_named(tmp_path, content, message):
  tokenizers_on_the_spot.write_sentencepiece(tmp_path)
  (tmp_path / "tokenizer.model").write_bytes(content)
  with pytest.raises(InputError, match=message) as error:
    tokenizer_files.load_tokenizer(tmp_path)
  assert "Put tokenizer.json" in str(error.value)
  assert "pip install" not in str(error.value)
  # What the message tells to do helps.
  tiny.make_tokenizer(300).save_pretrained(tmp_path)
  assert tokenizer_files.load_tokenizer(tmp_path)("<image>")["input_ids"] == [1, 4]


def test_nothing_is_said_of_a_type_that_only_llava_knows(tmp_path, caplog):
  loose.save_tower(tmp_path / "tower")
  loose.save_original(tmp_path / "model", tmp_path / "tower")
  caplog.clear()
  tokenizer_files.load_tokenizer(tmp_path / "model")
  assert not caplog.messages
  logging.getLogger("transformers.configuration_utils").warning("as loud as before")
  assert caplog.messages == ["as loud as before"]
