"""LLaVA's own functions, run from a checkout beside this repository."""

import ast
import contextlib
import copy
import dataclasses
import importlib.util
import io
import pathlib
import sys
import types
from typing import Any

import torch
import transformers
from PIL import Image

PATCHES = 5  # image tokens of an image
IMAGE = -200  # stands in the ids for one of them
# Our template's name -> LLaVA's.
TEMPLATE_NAMES = {
  "vicuna_v1": "vicuna_v1",
  "plain": "plain",
  "llama-2": "llava_llama_2",
}


class Original:
  """LLaVA's own functions, taken from a checkout without its heavy imports."""

  def __init__(self, folder: pathlib.Path):
    package = types.ModuleType("llava")
    package.__path__ = [str(folder / "llava")]
    sys.modules["llava"] = package
    self.constants = self._load(folder, "constants")
    self.conversation = self._load(folder, "conversation")
    self.mm = self._load(folder, "mm_utils")
    import tokenizers
    from packaging import version

    given = {
      "torch": torch,
      "transformers": transformers,
      "copy": copy,
      "DataArguments": Any,
      "conversation_lib": self.conversation,
      "tokenizer_image_token": self.mm.tokenizer_image_token,
      "IS_TOKENIZER_GREATER_THAN_0_14": version.parse(tokenizers.__version__)
      >= version.parse("0.14"),
      **{name: value for name, value in vars(self.constants).items() if name.isupper()},
    }
    exec("from typing import Dict, Optional, Sequence, List", given)
    exec("from dataclasses import dataclass", given)
    self.train = types.SimpleNamespace(
      **_take(folder / "llava/train/train.py", given, lambda name: (
        name.startswith("preprocess") or name == "DataCollatorForSupervisedDataset"
      ))
    )  # fmt: skip
    self.arch = _take(
      folder / "llava/model/llava_arch.py",
      dict(given),
      lambda name: name == "LlavaMetaForCausalLM",
    )["LlavaMetaForCausalLM"]

  def _load(self, folder: pathlib.Path, name: str):
    path = folder / "llava" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"llava.{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

  def encode(self, tokenizer, template: str, turns, has_image, max_length, system):
    """Tokens (IMAGE at a patch) and what is supervised, or why there are none."""
    conversation = self.conversation
    chosen = conversation.conv_templates[TEMPLATE_NAMES[template]]
    if template == "vicuna_v1":
      chosen = conversation.conv_templates["vicuna_v1"]
    if system is not None:
      chosen = dataclasses.replace(chosen, system=system)
    conversation.default_conversation = chosen
    tokenizer.model_max_length = max_length
    arguments = types.SimpleNamespace(is_multimodal=True, mm_use_im_start_end=False)
    source = [copy.deepcopy(turns)]
    try:
      if has_image:
        source = self.train.preprocess_multimodal(source, arguments)
      with contextlib.redirect_stdout(io.StringIO()) as said:
        found = self.train.preprocess(source, tokenizer, has_image=has_image)
      item = {"input_ids": found["input_ids"][0], "labels": found["labels"][0]}
      if not (item["labels"] != self.constants.IGNORE_INDEX).any():
        masked = "mismatch" in said.getvalue()
        return "masks the row" if masked else "cuts all answers"
      item["image"] = torch.zeros(3, 2, 2)
      batch = self.train.DataCollatorForSupervisedDataset(tokenizer)([item])
      return self._expand(batch, max_length)
    except (AssertionError, KeyError, IndexError) as error:
      return f"stops: {type(error).__name__}"

  def _expand(self, batch, max_length):
    """The model's expansion of the image, with ids in place of embeddings."""
    stub = types.SimpleNamespace(
      get_vision_tower=lambda: True,
      encode_images=lambda images: torch.full((1, PATCHES, 1), float(IMAGE)),
      get_model=lambda: types.SimpleNamespace(
        embed_tokens=lambda ids: ids[:, None].float()
      ),
      config=types.SimpleNamespace(tokenizer_model_max_length=max_length),
      device="cpu",
    )
    *_, ids, labels = self.arch.prepare_inputs_labels_for_multimodal(
      stub, batch["input_ids"], None, batch["attention_mask"], None, batch["labels"],
      batch["images"],
    )  # fmt: skip
    ids = ids[0, :, 0].round().int().numpy()
    supervised = labels[0].numpy() != self.constants.IGNORE_INDEX
    return (ids, supervised) if supervised.any() else "cuts all answers"

  def pixels(self, image: Image.Image, size: int):
    """An image as LLaVA prepares it: normalised, and before that."""
    from transformers.models.clip import CLIPImageProcessorPil

    options = types.SimpleNamespace(image_aspect_ratio="pad")
    sides = {
      "size": {"shortest_edge": size},
      "crop_size": {"height": size, "width": size},
    }
    raw = CLIPImageProcessorPil(**sides, do_rescale=False, do_normalize=False)
    results = [
      self.mm.process_images([image], processor, options)[0].permute(1, 2, 0).numpy()
      for processor in (CLIPImageProcessorPil(**sides), raw)
    ]
    return results[0], results[1]


def _take(path: pathlib.Path, given: dict[str, Any], wanted) -> dict[str, Any]:
  """Runs the definitions of a file that are wanted, and nothing else of it."""
  nodes = [
    node
    for node in ast.parse(path.read_text()).body
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and wanted(node.name)
  ]
  given.setdefault("ABC", object)
  given.setdefault("abstractmethod", lambda function: function)
  exec(compile(ast.Module(nodes, []), str(path), "exec"), given)
  return given
