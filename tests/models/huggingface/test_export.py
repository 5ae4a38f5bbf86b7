"""An exported directory, asked through transformers, beside what we train on."""

import json

import jax
import numpy as np
import PIL.Image
import pytest
import transformers

from benchmarks.pool_columns import bind_images
from mllm_selector_jax.data.images.image_forms import square_form
from mllm_selector_jax.data.tokens import conversation, template_source
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface import writer
from tests import exhaustive
from tests.data.test_conversation import talk
from tests.fixed_images import ONE_IMAGE
from tests.models import packed, tiny
from tests.models.huggingface import bases
from tests.models.huggingface.parity_cases import CASES
from tests.models.huggingface.test_native_parity import CASES as NATIVE
from tests.models.huggingface.test_parity import load_torch

VALUES = ("<image>\nWhat is it?", "A star.", "And how many?", "two é")


def messages(values):
  """A conversation as transformers' processors take it."""
  found = []
  for place, value in enumerate(values):
    parts = [{"type": "image"}] if "<image>" in value else []
    parts.append({"type": "text", "text": value.replace("<image>\n", "")})
    found.append({"role": ("user", "assistant")[place % 2], "content": parts})
  return found


def export(folder, name, system=None, **overrides):
  """Writes a base and its export as a tune does; returns encoder, options, export."""
  special = (*tiny.SPECIAL, "<|im_start|>", "<|im_end|>")
  base = tiny.make_base(folder / "base", **overrides)
  tiny.make_tokenizer(300, special).save_pretrained(base)
  config = huggingface.read_config(base)
  tokenizer, options = huggingface.read_processor(base, pad=True)
  encoder = conversation.make_encoder(
    name, tokenizer, bind_images(config, options), 2048, system
  )
  source, exact = template_source.make_chat_template(encoder)
  assert exact
  out = folder / "out"
  params = huggingface.read_params(base, config)
  huggingface.write_model(
    out, config, params, base, images=options, chat_template=source
  )
  return encoder, options, out


def load_processor(out):
  """The export's processor, its image part in the Pillow form."""
  settings = json.loads((out / "processor_config.json").read_text())
  assert settings.pop("processor_class") == "LlavaProcessor"
  tokenizer = transformers.AutoTokenizer.from_pretrained(out)
  return transformers.LlavaProcessor(
    transformers.AutoImageProcessor.from_pretrained(out, backend="pil"),
    tokenizer,
    chat_template=(out / "chat_template.jinja").read_text(),
    **settings,
  )


@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize(
  ("name", "tower"),
  [
    ("vicuna_v1", "clip_vision_model"),
    ("chatml", "siglip_vision_model"),
    ("llama-2", "clip_vision_model"),
  ],
)
def test_a_processor_of_the_export_asks_and_masks_as_we_train(
  tmp_path, name, tower, system
):
  encoder, options, out = export(tmp_path, name, system, tower=tower)
  sample = encoder.encode(talk(*VALUES), ONE_IMAGE)
  image = PIL.Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (20, 47, 3), dtype=np.uint8)
  )
  processor = load_processor(out)
  text = processor.apply_chat_template(messages(VALUES), tokenize=False)
  assert (system or conversation.TEMPLATES[name].system) in text
  found = processor(
    images=image,
    text=text,
    add_special_tokens=False,
    do_rescale=False,
    do_normalize=False,
  )
  assert np.ravel(found["input_ids"]).tolist() == sample.tokens.tolist()
  pixels = np.asarray(found["pixel_values"][0]).transpose(1, 2, 0)
  np.testing.assert_array_equal(pixels, square_form.to_pixels(image, options))
  marked = processor.tokenizer.apply_chat_template(
    messages(VALUES), return_dict=True, return_assistant_tokens_mask=True
  )
  ids, mask = (np.array(marked[key]) for key in ("input_ids", "assistant_masks"))
  features = huggingface.read_config(out).patches
  copies = np.where(ids == encoder.image_token, features, 1)
  assert np.repeat(ids, copies).tolist() == sample.tokens.tolist()
  assert np.repeat(mask, copies).tolist() == sample.supervised.tolist()


def test_an_older_chat_template_is_replaced(tmp_path):
  encoder, options, out = export(tmp_path, "vicuna_v1")
  old = bases.copy(tmp_path / "base", tmp_path / "old")
  (old / "chat_template.json").write_text(json.dumps({"chat_template": "old"}))
  bases.edit_json(
    old / "tokenizer_config.json", lambda x: x.update(chat_template="old")
  )
  config = huggingface.read_config(old)
  source, _ = template_source.make_chat_template(encoder)
  params = huggingface.read_params(old, config)
  huggingface.write_model(tmp_path / "new", config, params, old, options, source)
  assert load_processor(tmp_path / "new").tokenizer.chat_template == source
  assert {path.name for path in (tmp_path / "new").iterdir()} == {
    path.name for path in out.iterdir()
  }


TILED = {
  "llava next": {"family": "llava_next", "decoder": "mistral"},
  "llava onevision": {
    "family": "llava_onevision",
    "decoder": "qwen2",
    "tie_word_embeddings": True,
  },
  "internvl, unpooled": {
    "family": "internvl",
    "decoder": "llama",
    "vision_use_mean_pooling": False,
    "vision_attention_bias": True,
  },
  "pixtral": {"family": "pixtral", "decoder": "mistral", "vision_hidden_act": "silu"},
  "idefics3": {"family": "idefics3"},
  "gemma3, tied": {"family": "gemma3", "tie_word_embeddings": True},
  "smolvlm, tied": {"family": "smolvlm", "tie_word_embeddings": True},
  "mistral3": {"family": "mistral3", "decoder": "mistral"},
  "ministral3, tied": {
    "family": "mistral3",
    "decoder": "ministral3",
    "tie_word_embeddings": True,
    "llava_multimodal_projector_bias": True,
  },
}


NAMES = (
  *("llama with biases", "mistral", "qwen2", "qwen2 tied, siglip", "qwen3, dinov2"),
  *("phi3", "phi3, longrope", "granite", "glm4"),
  *("internvl 6b", "vipllava", "several layers", *TILED, *NATIVE),
)
# One of each way to lay out weights.
USUAL = (
  *("llama with biases", "qwen3, dinov2", "phi3, longrope", "internvl 6b"),
  *("several layers", "llava next", "ministral3, tied", "gemma3, tied"),
  *("qwen2.5", "qwen3, experts", "qwen3.5, no period"),
)


@pytest.mark.parametrize("name", exhaustive.choose(NAMES, usual=USUAL))
def test_every_family_goes_out_and_in_bit_for_bit(tmp_path, monkeypatch, name):
  monkeypatch.setattr(writer, "SHARD_BYTES", 20_000)
  base = tiny.make_base(tmp_path / "base", **{**CASES, **TILED, **NATIVE}[name])
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  for source, out in ((base, tmp_path / "one"), (tmp_path / "one", tmp_path / "two")):
    huggingface.write_model(out, config, params, source)
    assert len(list(out.glob("model-*.safetensors"))) > 3
    assert huggingface.read_config(out) == config
    found = huggingface.read_params(out, config)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    load_torch(out)  # refuses what is missing or left over
    params = found
  names = sorted(path.name for path in (tmp_path / "one").iterdir())
  for file in names:
    first, second = ((tmp_path / folder / file) for folder in ("one", "two"))
    assert first.read_bytes() == second.read_bytes(), file
