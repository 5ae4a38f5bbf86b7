"""Tiny BPE tokenizers for tests, trained in a moment on a few sentences."""

import functools
import io
import json
from pathlib import Path

import sentencepiece
from tokenizers import (
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
  trainers,
)
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from mllm_selector_jax.data.conversation import TEMPLATES

KINDS = ("bytes", "first", "always", "normalizer")
_SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
_WORDS = [
  "what colour is the circle? red blue green yellow USER: ASSISTANT:",
  "how many squares are in the picture? one two three four five",
  "is there a triangle to the left of the star? yes no",
  "Answer the question using a single word or phrase.",
  TEMPLATES["vicuna_v1"].system,
]


@functools.cache
def _train(kind: str) -> str:
  assert kind in KINDS, kind
  if kind == "bytes":
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special, alphabet = _SPECIAL, pre_tokenizers.ByteLevel.alphabet()
  else:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence(
      [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
      ]
    )
    special = _SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)]
    alphabet = []
  trainer = trainers.BpeTrainer(
    vocab_size=len(special) + len(alphabet) + 260,
    special_tokens=special,
    initial_alphabet=alphabet,
    show_progress=False,
  )
  tokenizer.train_from_iterator(_WORDS * 3, trainer)
  if kind in ("first", "always"):
    # As Llama's: words were split for the training, text is not.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
  elif kind == "normalizer":
    # As Llama's first fast tokenizers.
    tokenizer.normalizer = normalizers.Sequence(
      [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = None
  tokenizer.post_processor = processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 1)]
  )
  state = json.loads(tokenizer.to_str())
  # The trainer knows multi-character entries as special tokens only; bytes are not.
  state["added_tokens"] = state["added_tokens"][: len(_SPECIAL)]
  return json.dumps(state)


def make_tokenizer(kind: str = "bytes") -> PreTrainedTokenizerFast:
  """A tokenizer with BOS, EOS, unknown, padding and image tokens.

  Args:
    kind: "bytes" (as GPT-2's), "first" or "always" (as Llama's, by where a blank
      is put before the text), or "normalizer" (as Llama's older ones).
  """
  return PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer.from_str(_train(kind)),
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
    pad_token="<pad>",
    extra_special_tokens={"image_token": "<image>"},
  )


@functools.cache
def _train_sentencepiece(symbols: tuple[str, ...]) -> bytes:
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(_WORDS * 20),
    model_writer=model,
    model_type="bpe",
    vocab_size=380,
    hard_vocab_limit=False,
    byte_fallback=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    unk_id=0,
    bos_id=1,
    eos_id=2,
    pad_id=-1,
    control_symbols=list(symbols),
    minloglevel=2,
  )
  return model.getvalue()


def write_sentencepiece(folder: Path, symbols: tuple[str, ...] = (), **config) -> int:
  """Writes tokenizer.model, as Llama's and Vicuna's, and its tokenizer_config.json.

  Args:
    folder: that is there; another tokenizer's files in it are removed.
    symbols: special tokens that the model has from id 3 on.
    config: of tokenizer_config.json.

  Returns:
    The number of tokens.
  """
  for path in folder.glob("*token*"):
    path.unlink()
  (folder / "tokenizer.model").write_bytes(_train_sentencepiece(symbols))
  config = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "legacy": False,
    **config,
  }
  (folder / "tokenizer_config.json").write_text(json.dumps(config))
  path = str(folder / "tokenizer.model")
  return len(sentencepiece.SentencePieceProcessor(model_file=path))


def write_qwen2(folder: Path) -> int:
  """Writes a Qwen2 tokenizer with special tokens by name, as transformers 5 saves it.

  Args:
    folder: that is there; another tokenizer's files in it are removed.

  Returns:
    The id of `<image>`.
  """
  for path in folder.glob("*token*"):
    path.unlink()
  model = json.loads(_train("bytes"))["model"]
  tokenizer = Qwen2Tokenizer(
    vocab=model["vocab"],
    merges=[tuple(merge) for merge in model["merges"]],
    eos_token="<|endoftext|>",
    pad_token="<|endoftext|>",
    unk_token=None,
    extra_special_tokens=["<|im_start|>", "<|im_end|>", "<|box_start|>", "<image>"],
  )
  tokenizer.save_pretrained(folder)
  path = folder / "tokenizer_config.json"
  config = json.loads(path.read_text())
  config["image_token"] = "<image>"
  config["model_specific_special_tokens"] = {"image_token": "<image>"}
  path.write_text(json.dumps(config))
  return tokenizer.convert_tokens_to_ids("<image>")
