"""Decoders, towers and LLaVA's own checkpoints, as torch saves them."""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.models import tiny

VISION = {
  "hidden_size": 32,
  "intermediate_size": 64,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "image_size": 32,
  "patch_size": 8,
}


def shake(model: torch.nn.Module) -> torch.nn.Module:
  """Moves every parameter off its special value."""
  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  return model.eval()


def save_decoder(folder: Path, kind: str = "llama", pad: bool = False, **fields):
  """A decoder and its tokenizer; returns the torch model."""
  special = tiny.SPECIAL[:4] if pad else tiny.SPECIAL[:3]
  tokenizer = tiny.make_tokenizer(300, special)
  config = transformers.AutoConfig.for_model(
    kind,
    **{
      "vocab_size": len(tokenizer),
      "hidden_size": 32,
      "intermediate_size": 48,
      "num_hidden_layers": 2,
      "num_attention_heads": 4,
      "num_key_value_heads": 2,
      "max_position_embeddings": 256,
      "bos_token_id": 1,
      "eos_token_id": 2,
      "pad_token_id": 3 if pad else None,
      **fields,
    },
  )
  model = shake(transformers.AutoModelForCausalLM.from_config(config))
  model.save_pretrained(folder)
  tokenizer.save_pretrained(folder)
  return model


def save_tower(folder: Path, kind: str = "clip", whole: bool = False):
  """A vision tower and its processor; `whole` with the text half beside it."""
  names = {"clip": "CLIP", "siglip": "Siglip", "dinov2": "Dinov2"}[kind]
  if kind == "dinov2":
    sizes = {key: VISION[key] for key in VISION if key != "intermediate_size"}
    vision = transformers.Dinov2Config(**sizes, mlp_ratio=2)
  else:
    vision = getattr(transformers, f"{names}VisionConfig")(**VISION)
  if whole:
    text = {
      **{k: VISION[k] for k in VISION if not k.endswith("_size")},
      "hidden_size": 32,
      "intermediate_size": 64,
      "vocab_size": 99,
      "max_position_embeddings": 16,
    }
    config = getattr(transformers, f"{names}Config")(
      vision_config=vision.to_dict(), text_config=text
    )
    model = getattr(transformers, f"{names}Model")(config)
  else:
    part = "" if kind == "dinov2" else "Vision"
    model = getattr(transformers, f"{names}{part}Model")(vision)
  shake(model).save_pretrained(folder)
  processor = {
    "image_processor_type": f"{names}ImageProcessor",
    "do_center_crop": kind == "clip",
    "crop_size": {"height": 32, "width": 32},
    "size": {"shortest_edge": 32} if kind == "clip" else {"height": 32, "width": 32},
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48, 0.45, 0.40] if kind == "clip" else [0.5, 0.5, 0.5],
    "image_std": [0.26, 0.26, 0.27] if kind == "clip" else [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
  }
  if kind == "dinov2":  # as published, it crops less than its positions are for
    processor |= {
      "image_processor_type": "BitImageProcessor",
      "do_center_crop": True,
      "crop_size": {"height": 28, "width": 28},
      "size": {"shortest_edge": 40},
    }
  (folder / "preprocessor_config.json").write_text(json.dumps(processor))
  return model


def save_original(folder: Path, tower: Path, pickled: bool = False, own: bool = False):
  """LLaVA's own form: decoder and projector, the tower named, or `own` too."""
  decoder = save_decoder(folder)
  torch.manual_seed(1)
  weights = load_file(folder / "model.safetensors")
  weights |= {
    "model.mm_projector.0.weight": torch.randn(32, 32) / 6,
    "model.mm_projector.0.bias": torch.randn(32) / 9,
    "model.mm_projector.2.weight": torch.randn(32, 32) / 6,
    "model.mm_projector.2.bias": torch.randn(32) / 9,
  }
  if own:
    for name, value in load_file(tower / "model.safetensors").items():
      name = name if name.startswith("vision_model.") else f"vision_model.{name}"
      weights[f"model.vision_tower.vision_tower.{name}"] = value + 0.05
  (folder / "model.safetensors").unlink()
  if pickled:
    names = sorted(weights)
    where = {
      n: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, n in enumerate(names)
    }
    for file in set(where.values()):
      torch.save({n: weights[n] for n in names if where[n] == file}, folder / file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
  else:
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
  config = json.loads((folder / "config.json").read_text())
  config |= {
    "model_type": "llava_llama",
    "architectures": ["LlavaLlamaForCausalLM"],
    "mm_vision_tower": str(tower),
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 32,
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_use_im_start_end": False,
    "image_aspect_ratio": "pad",
  }
  (folder / "config.json").write_text(json.dumps(config))
  return decoder, weights
