"""The forms of models that `benchmarks/families.py` tries, made tiny on the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import transformers

from benchmarks import export_matrix
from benchmarks.export_matrix import CLIP, DINOV2, SIGLIP
from tests.models.huggingface import bases, loose
from tests.models.huggingface.test_internvl_chat import save_own_form
from tests.models.tiny import make_tokenizer
from tests.stages import family_bases

AUTO = "auto"


class Form(NamedTuple):
  """A form in which a model is published.

  Attributes:
    name: a published model of that form.
    make: writes a tiny model of that form below a folder; returns its own folder.
    conversation: the value of `model.conversation`.
  """

  name: str
  make: Callable[[Path], Path]
  conversation: str = AUTO


def _parts(
  decoder: str,
  tower: str,
  conversation: str = "vicuna_v1",
  form: str = "base",
  tokenizer: str = "json",
  **fields: Any,
) -> dict[str, Any]:
  """A LLaVA of these parts; `form` and `tokenizer` are those of `export_matrix`."""
  family = export_matrix.Family(
    decoder, tower, tokenizer, conversation, form, tuple(fields.items())
  )
  return {
    "make": lambda folder: export_matrix.make_source(folder, family),
    "conversation": conversation,
  }


def _whole(family: str, **fields: Any) -> dict[str, Any]:
  """A whole model of a family of `tests/stages/family_bases.py`."""
  return {
    "make": lambda folder: family_bases.make_base(folder / "base", family, **fields),
    "conversation": family_bases.FAMILIES[family][1],
  }


def _internvl_chat(decoder: str, **fields: Any) -> dict[str, Any]:
  """OpenGVLab's own form of InternVL."""

  def make(folder: Path) -> Path:
    base = family_bases.make_base(folder / "base", "internvl", decoder=decoder)
    save_own_form(base, folder / "own")
    if fields:
      config = folder / "own/config.json"
      bases.edit_json(config, lambda value: value["llm_config"].update(fields))
    return folder / "own"

  return {"make": make, "conversation": "chatml"}


def _changed(family: str, **fields: Any) -> dict[str, Any]:
  """A whole model of a family, with these fields of its text model."""

  def make(folder: Path) -> Path:
    base = family_bases.make_base(folder / "base", family)
    config = base / "config.json"
    bases.edit_json(config, lambda value: value["text_config"].update(fields))
    return base

  return {"make": make, "conversation": family_bases.FAMILIES[family][1]}


def _described(model_type: str, **fields: Any) -> dict[str, Any]:
  """A folder with the default config.json of a model_type, and a tokenizer."""

  def make(folder: Path) -> Path:
    transformers.AutoConfig.for_model(model_type, **fields).save_pretrained(folder)
    make_tokenizer(300).save_pretrained(folder)
    return folder

  return {"make": make}


def _decoder_alone(folder: Path) -> Path:
  loose.save_decoder(folder)
  return folder


_WIDE_VIT = {
  "vision_attention_bias": False,
  "vision_norm_type": "rms_norm",
  "vision_use_qk_norm": True,
}
FORMS = (
  Form("llava-hf/llava-1.5-7b-hf", **_parts("llama", CLIP)),
  Form("liuhaotian/llava-v1.5-7b", **_parts("llama", CLIP, form="original")),
  Form(
    "liuhaotian/llava-v1.5-13b, tokenizer.model alone",
    **_parts("llama", CLIP, form="original", tokenizer="model"),
  ),
  Form("llava-hf/vip-llava-7b-hf", **_parts("llama", CLIP, family="vipllava")),
  Form(
    "llava-hf/llava-interleave-qwen-7b-hf",
    **_parts("qwen2", SIGLIP, "chatml", tokenizer="qwen2"),
  ),
  Form("llava-hf/llava-v1.6-vicuna-7b-hf", **_whole("llava_next")),
  Form("llava-hf/llava-v1.6-mistral-7b-hf", **_whole("llava_next", decoder="mistral")),
  Form("llava-hf/llava-next-72b-hf", **_whole("llava_next", decoder="qwen2")),
  Form("llava-hf/llava-onevision-qwen2-7b-ov-hf", **_whole("llava_onevision")),
  Form(
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
    **_whole("llava_onevision", tie_word_embeddings=True),
  ),
  Form("mistral-community/pixtral-12b", **_whole("pixtral")),
  Form(
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503",
    **_whole("mistral3", decoder="mistral", head_dim=12),
  ),
  Form("mistralai/Ministral-3-8B-Instruct-2512", **_whole("mistral3")),
  Form("OpenGVLab/InternVL3-8B-hf", **_whole("internvl")),
  Form("OpenGVLab/InternVL3-9B-hf", **_whole("internvl", decoder="llama")),
  Form("OpenGVLab/InternVL3-78B-hf", **_whole("internvl", **_WIDE_VIT)),
  Form(
    "OpenGVLab/InternVL3_5-8B-HF", **_whole("internvl", decoder="qwen3", head_dim=8)
  ),
  Form("OpenGVLab/InternVL3-8B", **_internvl_chat("qwen2")),
  Form("OpenGVLab/InternVL3_5-8B", **_internvl_chat("qwen3")),
  Form("OpenGVLab/InternVL3-9B", **_internvl_chat("llama")),
  Form("Qwen/Qwen2-VL-7B-Instruct", **_whole("qwen2_vl")),
  Form("Qwen/Qwen2-VL-2B-Instruct", **_whole("qwen2_vl", tie_word_embeddings=True)),
  Form("Qwen/Qwen2.5-VL-7B-Instruct", **_whole("qwen2_5_vl")),
  Form("Qwen/Qwen2.5-VL-3B-Instruct", **_whole("qwen2_5_vl", tie_word_embeddings=True)),
  Form("Qwen/Qwen3-VL-8B-Instruct", **_whole("qwen3_vl")),
  Form("Qwen/Qwen3-VL-4B-Instruct", **_whole("qwen3_vl", tie_word_embeddings=True)),
  Form("Qwen/Qwen3-VL-30B-A3B-Instruct", **_whole("qwen3_vl_moe")),
  Form("Qwen/Qwen3.5-9B", **_whole("qwen3_5")),
  Form("zai-org/GLM-4.1V-9B-Thinking", **_whole("glm4v")),
  Form("zai-org/GLM-4.6V-Flash", **_whole("glm46v")),
  Form("ibm-granite/granite-vision-3.3-2b", **_whole("llava_next", decoder="granite")),
  Form("xtuner/llava-phi-3-mini-hf", **_parts("phi3", CLIP)),
  Form("HuggingFaceTB/SmolVLM-256M-Instruct", **_whole("idefics3")),
  Form("HuggingFaceTB/SmolVLM2-2.2B-Instruct", **_whole("smolvlm")),
  Form("HuggingFaceM4/Idefics3-8B-Llama3", **_whole("idefics3", rope_theta=5e5)),
  Form("google/gemma-3-4b-it", **_whole("gemma3", tie_word_embeddings=True)),
  Form("google/gemma-4-31B-it", **_whole("gemma4", tie_word_embeddings=True)),
  Form("google/gemma-4-E2B-it", **_whole("gemma4e", tie_word_embeddings=True)),
  Form(
    "google/gemma-4-E4B-it",
    **_whole("gemma4e", tie_word_embeddings=True, use_double_wide_mlp=False),
  ),
  Form(
    "assembled: Vicuna and CLIP",
    **_parts("llama", CLIP, form="assembled", tokenizer="model"),
  ),
  Form(
    "assembled: Qwen2 and SigLIP",
    **_parts("qwen2", SIGLIP, "chatml", "assembled", "qwen2"),
  ),
  Form("assembled: Qwen3 and DINOv2", **_parts("qwen3", DINOV2, "chatml", "assembled")),
  Form(
    "assembled: Gemma 3 1B and SigLIP",
    **_parts("gemma3_text", SIGLIP, form="assembled"),
  ),
  Form(
    "assembled: GLM-4-9B-0414 and SigLIP",
    **_parts("glm4", SIGLIP, form="assembled", head_dim=8),
  ),
  Form("OpenGVLab/InternVL2-8B", **_internvl_chat("llama", model_type="internlm2")),
  Form("Qwen/Qwen2.5-Omni-7B", **_described("qwen2_5_omni")),
  Form("zai-org/GLM-4.5V", **_described("glm4v_moe")),
  Form("google/paligemma2-3b-mix-448", **_described("paligemma")),
  Form("google/gemma-3n-E4B-it", **_described("gemma3n")),
  Form("google/gemma-4-26B-A4B-it", **_changed("gemma4", enable_moe_block=True)),
  Form("google/gemma-4-12B-it", **_described("gemma4_unified")),
  Form("meta-llama/Llama-3.2-11B-Vision-Instruct", **_described("mllama")),
  Form("meta-llama/Llama-4-Scout-17B-16E-Instruct", **_described("llama4")),
  Form("HuggingFaceM4/idefics2-8b", **_described("idefics2")),
  Form("Salesforce/instructblip-vicuna-7b", **_described("instructblip")),
  Form("deepseek-community/deepseek-vl-7b-chat", **_described("deepseek_vl")),
  Form("CohereLabs/aya-vision-8b", **_described("aya_vision")),
  Form("AIDC-AI/Ovis2-8B-hf", **_described("ovis2")),
  Form("microsoft/Phi-4-multimodal-instruct", **_described("phi4_multimodal")),
  Form("llava-hf/LLaVA-NeXT-Video-7B-hf", **_described("llava_next_video")),
  Form("apple/FastVLM-7B", **_described("fast_vlm")),
  Form("lmsys/vicuna-7b-v1.5, alone", make=_decoder_alone),
)
