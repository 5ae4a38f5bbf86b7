"""Tokenizers with a vocabulary written down here: the same with every library.

Unlike a trained one, their ids can stand in golden files. As in Llama's vocabulary
"USER" is one token and " USER" two; LLaVA's length bookkeeping relies on it.
"""

import hashlib
import json

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

KINDS = ("bytes", "first", "always", "normalizer")
# Qwen 2's way to split a text before its merges.
_QWEN = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<image>", "<|im_start|>", "<|im_end|>"]
_WORDS = (
  "what colour is the circle red blue star and where two three in picture one of a no"
  " yes how many are there it The A An user assistant system helpful"
).split()
_BLANK = {True: "\u0120", False: "\u2581"}  # by whether it is byte-level


def _byte_letters() -> list[str]:
  """GPT-2's printable letter of each byte."""
  plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
  other = [byte for byte in range(256) if byte not in plain]
  letters = {byte: chr(byte) for byte in plain}
  letters |= {byte: chr(256 + place) for place, byte in enumerate(other)}
  return [letters[byte] for byte in range(256)]


def _merges(blank: str) -> list[tuple[str, str]]:
  """Pairs in the order of their rank: words grow letter by letter."""
  merges = [(blank, "U"), (f"{blank}U", "S"), ("E", "R"), ("U", "S"), ("US", "ER")]
  merges += [(blank, blank), ("S", "S"), ("A", "N"), ("AN", "T")]
  for word in _WORDS:
    for stem in (blank + word, word):
      for end in range(1, len(stem)):
        merges.append((stem[:end], stem[end]))
  return list(dict.fromkeys(merges))


def make_state(kind: str) -> str:
  """tokenizer.json of a kind."""
  assert kind in (*KINDS, "qwen"), kind
  is_bytes = kind in ("bytes", "qwen")
  blank = _BLANK[is_bytes]
  merges = _merges(blank)
  if is_bytes:
    merges.append(("\u010a", "\u010a"))  # two line ends, which Qwen's also has
    alphabet = _byte_letters()
  else:
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    alphabet += [chr(code) for code in range(33, 127)] + [blank]
  tokens = [*SPECIAL, *alphabet, *("".join(pair) for pair in merges)]
  model = {
    "type": "BPE",
    "unk_token": "<unk>",
    "fuse_unk": not is_bytes,
    "byte_fallback": not is_bytes,
    "vocab": {token: number for number, token in enumerate(dict.fromkeys(tokens))},
    "merges": [list(pair) for pair in merges],
  }
  state = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
      {
        "id": number,
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
      }
      for number, token in enumerate(SPECIAL)
    ],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": {
      "type": "TemplateProcessing",
      "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
      ],
      "pair": [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}},
      ],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    },
    "decoder": {
      "type": "Sequence",
      "decoders": [
        {"type": "Replace", "pattern": {"String": blank}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
      ],
    },
    "model": model,
  }
  if is_bytes:
    level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    state["pre_tokenizer"] = state["decoder"] = {"type": "ByteLevel", **level}
    if kind == "qwen":
      split = {"type": "Split", "pattern": {"Regex": _QWEN}, "behavior": "Isolated"}
      state["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
          {**split, "invert": False},
          {"type": "ByteLevel", **level, "use_regex": False},
        ],
      }
  elif kind == "normalizer":
    state["normalizer"] = {
      "type": "Sequence",
      "normalizers": [
        {"type": "Prepend", "prepend": blank},
        {"type": "Replace", "pattern": {"String": " "}, "content": blank},
      ],
    }
  else:
    state["pre_tokenizer"] = {
      "type": "Metaspace",
      "replacement": blank,
      "prepend_scheme": kind,
      "split": False,
    }
  return json.dumps(state, sort_keys=True)


def identify(kind: str) -> str:
  """SHA-256 of the tokenizer's state."""
  return hashlib.sha256(make_state(kind).encode()).hexdigest()


def make_tokenizer(kind: str, begins: bool = True) -> PreTrainedTokenizerFast:
  """A tokenizer as LLaVA sets up Llama's: padding is the unknown token.

  Args:
    kind: "bytes" (as GPT-2's), "qwen" (as Qwen's), "first" (as Llama's with
      legacy=False), "always" or "normalizer" (as with legacy=True).
    begins: whether a text opens with BOS, as Llama's does and Qwen's does not.
  """
  state = json.loads(make_state(kind))
  if not begins:
    state["post_processor"] = None
  tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer.from_str(json.dumps(state)),
    bos_token="<s>",
    eos_token="</s>",
    unk_token="<unk>",
    pad_token="<unk>",
  )
  # What LLaVA asks of Llama's tokenizers, and only those have.
  tokenizer.legacy = kind != "first"
  return tokenizer
