"""Exports stop where we do, asked by transformers with nothing but their folder."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
import transformers

from benchmarks.pool_columns import bind_images
from mllm_selector_jax.data.images.image_forms import square_form
from mllm_selector_jax.data.tokens import conversation, template_source
from mllm_selector_jax.evaluation import generation
from mllm_selector_jax.evaluation.asking import evaluate_model
from mllm_selector_jax.evaluation.question import Question, QuestionImage
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface import stops
from tests.data.test_templates import CHATML, LISTED
from tests.fixed_images import ONE_IMAGE
from tests.models import packed, tiny
from tests.models.huggingface import bases

torch.set_num_threads(1)
NEW = 10
QUESTION = "What is it?"
FAMILIES = {
  "llama": {},
  "mistral": {"decoder": "mistral", "sliding_window": 40},
  "qwen2": {"decoder": "qwen2", "tower": "siglip_vision_model"},
  "llama, siglip": {"tower": "siglip_vision_model"},
}
# As vicuna's, Qwen2's and Qwen2-Instruct's are, with the ids of the tiny tokenizer.
SETTINGS = {
  "none": None,
  "vicuna": {
    "_from_model_config": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
    "max_length": 256,
    "temperature": 0.9,
    "top_p": 0.6,
    "transformers_version": "4.31.0",
  },
  "sampling": {
    "bos_token_id": 1,
    "pad_token_id": 3,
    "do_sample": True,
    "eos_token_id": [6, 2],
    "repetition_penalty": 1.5,
    "temperature": 0.7,
    "top_k": 20,
  },
}


def make_base(folder, chat=None, settings="none", **overrides):
  """A base whose tokenizer knows ChatML's marks, and whose chat template is `chat`."""
  base = tiny.make_base(folder, **overrides)
  tokenizer = tiny.make_tokenizer(300, (*tiny.SPECIAL, "<|im_start|>", "<|im_end|>"))
  tokenizer.chat_template = chat
  tokenizer.save_pretrained(base)
  path = base / "generation_config.json"
  path.unlink()
  if SETTINGS[settings] is not None:
    path.write_text(json.dumps(SETTINGS[settings]))
  return base


def open_base(base, name, system=None):
  config = huggingface.read_config(base)
  tokenizer, options = huggingface.read_processor(base, pad=True)
  encoder = conversation.make_encoder(
    name,
    tokenizer,
    bind_images(config, options),
    2048,
    system,
    ends=huggingface.read_ends(base, tokenizer),
  )
  return config, encoder, options


def teach_to_stop(config, params, encoder, options, image, end):
  """Lets the end stand where the model would write another token, after a few.

  In the head alone two tokens change places, so that all before stays as it is.
  """
  head = np.array(params["decoder"]["head"])
  head[:, len(encoder.tokenizer) :] = 0  # no trained model writes what is no token
  params["decoder"]["head"] = head
  prompt = encoder.prompt(QUESTION, ONE_IMAGE)
  pixels = square_form.to_pixels(image, options)
  batch = generation.make_prompts([prompt], [(pixels[None],)], config, 1)
  free = np.asarray(generation.make_generate(config, NEW, -1)(params, *batch))[0]
  firsts = [place for place in range(1, NEW - 3) if free[place] not in free[:place]]
  assert firsts, free
  other = int(free[firsts[0]])
  head = head.copy()
  head[:, [other, end]] = head[:, [end, other]]
  params["decoder"]["head"] = head


def ask_transformers(folder, image, question=QUESTION, listed=True, **more):
  """An answer, with all that is asked of the folder alone; its ids and its text.

  Args:
    folder: the model's.
    image: of the question.
    question: its text.
    listed: whether the chat template takes messages as lists of parts, or as text.
    more: what `generate` is told beside the number of tokens.
  """
  processor = transformers.AutoProcessor.from_pretrained(folder)
  model = transformers.LlavaForConditionalGeneration.from_pretrained(folder)
  content = question if image is None else f"<image>\n{question}"
  if listed:
    content = [{"type": "image"}] if image is not None else []
    content.append({"type": "text", "text": question})
  text = processor.apply_chat_template(
    [{"role": "user", "content": content}], add_generation_prompt=True
  )
  # The template writes what begins a text.
  inputs = processor(
    images=image, text=text, add_special_tokens=False, return_tensors="pt"
  )
  ids = model.generate(**inputs, max_new_tokens=NEW, **more)
  ids = ids[0, inputs["input_ids"].shape[1] :]
  return ids.tolist(), processor.decode(ids, skip_special_tokens=True).strip()


def make_image(folder):
  pixels = np.random.default_rng(0).integers(0, 256, (20, 47, 3), dtype=np.uint8)
  image = PIL.Image.fromarray(pixels)
  image.save(folder / "image.png")
  return image


@pytest.mark.parametrize(
  ("name", "chat", "family", "settings"),
  [
    ("chatml", None, "qwen2", "none"),
    ("chatml", None, "llama", "vicuna"),
    ("chatml", None, "mistral", "sampling"),
    ("vicuna_v1", None, "llama", "vicuna"),
    ("vicuna_v1", None, "qwen2", "sampling"),
    ("llama-2", None, "mistral", "vicuna"),
    ("llama-2", None, "llama, siglip", "none"),
    ("plain", None, "llama", "vicuna"),
    ("plain", None, "qwen2", "none"),
    ("chat", CHATML, "llama, siglip", "vicuna"),
    ("chat", LISTED, "qwen2", "none"),
  ],
)
def test_generate_stops_and_answers_as_we_do(tmp_path, name, chat, family, settings):
  base = make_base(tmp_path / "base", chat, settings, **FAMILIES[family])
  config, encoder, options = open_base(base, name)
  image = make_image(tmp_path)
  params = packed.random_params(config)
  end = encoder.encode([{"from": "human", "value": "<image>"},
                        {"from": "gpt", "value": "two"}], ONE_IMAGE)  # fmt: skip
  end = int(end.tokens[end.supervised][-1])
  teach_to_stop(config, params, encoder, options, image, end)
  source, exact = template_source.make_chat_template(encoder)
  assert exact
  out = tmp_path / "out"
  ends = encoder.answers.ends
  huggingface.write_model(out, config, params, base, options, source, ends)
  question = Question("a", "t", (QuestionImage("image.png"),), QUESTION, ("red",))
  if name == "plain":
    question = Question("a", "t", (QuestionImage("image.png"),), "", ("red",))
  _, (ours,) = evaluate_model(
    config, params, encoder, str(tmp_path), [question], 1, NEW
  )
  asked = out, image, question.question, chat != CHATML
  ids, text = ask_transformers(*asked)
  assert text == ours["prediction"] != ""
  assert 1 < len(ids) < NEW and ids[-1] == end
  # Asked with the base's own end alone, it goes on, unless that is the template's.
  longer, _ = ask_transformers(*asked, eos_token_id=2)
  assert (len(longer) == NEW) == (end != 2)
  assert_saved_again(out, tmp_path / "again")


def assert_saved_again(folder, again):
  """A config that is invalid is one that transformers does not save."""
  config = transformers.GenerationConfig.from_pretrained(folder)
  config.validate(strict=True)
  transformers.GenerationConfig(**config.to_diff_dict()).save_pretrained(again)


@pytest.mark.parametrize(
  ("stored", "wanted"),
  [
    ({"eos_token_id": 2}, (2,)),
    ({"eos_token_id": [2, 6]}, (2, 6)),
    ({"eos_token_id": [6, 2, 6]}, (6, 2)),
    # 200 is ordinary text: a template's end, which is of no use in another.
    ({"eos_token_id": [200, 6]}, (6, 2)),
    ({"eos_token_id": None}, (2,)),
    ({"eos_token_id": "</s>"}, (2,)),
    ({}, (2,)),
  ],
)
def test_the_ends_of_a_base(tmp_path, stored, wanted):
  base = make_base(tmp_path / "base")
  (base / "generation_config.json").write_text(json.dumps(stored))
  tokenizer, _ = huggingface.read_processor(base)
  assert huggingface.read_ends(base, tokenizer) == wanted


def test_a_captioner_as_a_base_does_not_end_answers_at_its_new_line(tmp_path):
  """The new line that ends a caption of stage 1 does not end a tuned model's answer."""
  base = make_base(tmp_path / "base")
  config, encoder, _ = open_base(base, "plain")
  new_line = encoder.tokenizer("\n", add_special_tokens=False)["input_ids"]
  params = huggingface.read_params(base, config)
  aligned = tmp_path / "aligned"
  huggingface.write_model(aligned, config, params, base, ends=encoder.answers.ends)
  stored = json.loads((aligned / "generation_config.json").read_text())
  assert stored["eos_token_id"][0] == 2 and set(new_line) < set(stored["eos_token_id"])
  _, tuned, _ = open_base(aligned, "chatml")
  assert tuned.answers.ends == (6, 2)


def test_an_end_is_the_tokenizers_where_the_configs_is_stale(tmp_path):
  """LlamaConfig's own 2 is a word in many vocabularies."""
  base = make_base(tmp_path / "base")
  bases.edit_json(
    base / "config.json", lambda x: x["text_config"].update(eos_token_id=250)
  )
  tokenizer, _ = huggingface.read_processor(base)
  assert huggingface.read_ends(base, tokenizer) == (2,)


def test_only_what_is_valid_and_greedy_stays():
  kept = stops.keep_valid({"eos_token_id": [6, 2], "max_new_tokens": 0, "top_p": 0.6})
  assert kept == {"eos_token_id": [6, 2]}
  kept = stops.keep_valid({"pad_token_id": -1, "max_length": 9, "bos_token_id": None})
  assert kept == {"max_length": 9}
