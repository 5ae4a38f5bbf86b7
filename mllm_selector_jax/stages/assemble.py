"""assemble: makes a base directory of a decoder, a vision tower and a projector.

  mllm-selector assemble --decoder=lmsys/vicuna-7b-v1.5 \\
      --vision=openai/clip-vit-large-patch14-336 --out=bases/llava-7b

It also converts a checkpoint in LLaVA's own format, given as --decoder without
--vision, to a directory that transformers reads.
"""

import shutil
from pathlib import Path
from typing import Any

from absl import flags

from mllm_selector_jax.runs.standard_output import write_result
from mllm_selector_jax.types import InputError

_DECODER = flags.DEFINE_string("decoder", None, "Directory or hub name of the decoder.")
_VISION = flags.DEFINE_string("vision", None, "Directory or hub name of the tower.")
_PROJECTOR = flags.DEFINE_string(
  "projector",
  None,
  "Directory or safetensors file of the projector; without it, parameters are random.",
)
_OUT = flags.DEFINE_string("out", None, "Directory that is written.")
_LAYER = flags.DEFINE_integer(
  "feature_layer", -2, "Layer of the vision tower whose output is projected."
)
_SELECT: Any = flags.DEFINE_enum(
  "select", None, ["default", "full"], "default drops the class token; full keeps it."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of a random projector.")


def assemble() -> None:
  """Writes the directory that the flags describe; if it fails, nothing is left.

  Raises:
    InputError: a flag is missing, or the parts do not fit.
  """
  if not _DECODER.value or not _OUT.value:
    raise InputError(
      "assemble needs --decoder=DIR, --out=DIR and, unless the decoder is one of"
      " LLaVA's own checkpoints, --vision=DIR."
    )
  from mllm_selector_jax.models import huggingface  # the help does not wait for it

  out = Path(_OUT.value)
  if out.exists() and any(out.iterdir()):
    raise InputError(f"--out={out}: the folder is not empty; give another one.")
  part = out.with_name(out.name + ".part")
  shutil.rmtree(part, ignore_errors=True)
  try:
    config = huggingface.assemble(
      part,
      _DECODER.value,
      _VISION.value,
      _PROJECTOR.value,
      feature_layer=_LAYER.value,
      select=_SELECT.value,
      seed=_SEED.value,
    )
    if out.exists():
      out.rmdir()
    part.rename(out)
  except BaseException:
    shutil.rmtree(part, ignore_errors=True)
    raise
  write_result(
    f"{out}: vocabulary {config.decoder.vocab:,}, image token {config.image_token},"
    f" {config.patches} tokens an image."
    + (
      ""
      if _PROJECTOR.value or not _VISION.value
      else " The projector is random:"
      " train it first (mllm-selector align --config=llava15_7b_align)."
    )
  )
