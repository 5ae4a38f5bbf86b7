"""Names code that comes with a model; it is never run, and no flag changes that."""

from pathlib import Path

from mllm_selector_jax.models.huggingface.source import read_json
from mllm_selector_jax.types import InputError

# What to give instead, by the file that names the code.
_INSTEAD = {
  "config.json": "Give the model in the form that transformers knows by itself, if it"
  " is published so.",
  "tokenizer_config.json": "Save it as tokenizer.json where its code is run,"
  " as transformers' PreTrainedTokenizerFast, and put that file beside.",
  "preprocessor_config.json": "Put a preprocessor_config.json of CLIPImageProcessor,"
  " SiglipImageProcessor or LlavaImageProcessor in its place that prepares images as"
  " the model was trained.",
}


def name_custom_code(
  folder: Path, file: str, what: str, error: Exception | None = None
) -> None:
  """Refuses by its name what transformers would only read by running code.

  Args:
    folder: the model's.
    file: of the folder that names the code.
    what: for the message, such as "the tokenizer".
    error: of transformers, whose advice to trust the code must not be passed on;
      None where the file alone says whether there is code.

  Raises:
    InputError: there is such code; otherwise nothing happens.
  """
  path = folder / file
  code = read_json(path).get("auto_map") if path.is_file() else None
  if error is None and not code:
    return
  if error is not None and "trust_remote_code" not in str(error):
    return
  names = ", ".join(map(str, code.values())) if isinstance(code, dict) else code
  raise InputError(
    f"{path}: {what} is code that comes with the model"
    f"{f' (auto_map: {names})' if names else ''}, which this package never runs."
    f" {_INSTEAD[file]}"
  ) from error
