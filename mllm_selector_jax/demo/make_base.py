"""Trains the tiny base that the package ships, from random parameters.

  python -m mllm_selector_jax.demo.make_base --out=DIR

A tokenizer is trained on the words of the demo. A model of LLaVA's form is then trained
in two phases, in which all parameters are trained. In the first it learns to caption
drawn scenes, half of them as in LLaVA's stage 1 (image, then caption) and half as the
answer to a request, and to answer questions of the pool's easy head. In the second it
learns only these questions, with the prompt for a brief answer as in the pool. With the
same versions of all packages, on the same kind of machine, the files have the same
bytes.
"""

import dataclasses
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from mllm_selector_jax import demo, sharding
from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.data.packing import assembly, loader, row_packing
from mllm_selector_jax.data.tokens import conversation
from mllm_selector_jax.demo.language import CAPTION_PROMPTS, SHORT_ANSWER
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.runs.console import Console
from mllm_selector_jax.training import loop
from mllm_selector_jax.training.optimizer_options import OptimizerOptions
from mllm_selector_jax.types import ImageTokens

SEED = 20_240
CAPTIONS = 30_000
QUESTIONS = 10_000  # of the tasks of the pool's easy head
EPOCHS = 6  # of the first phase
LAST_EPOCHS = 3  # of the second phase, of questions only
BATCH = 64
ROW_LENGTH = 96
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
# Texts of other pools with short answers, so that their words are few tokens each.
MORE_TEXT = (
  "Answer the question using a single word or phrase.",
  "what color is the shape? does the image contain a rectangle? is there not a"
  " triangle? what shape is present in the image? no yes gray teal brown circle",
)


def make_tokenizer():
  """Trains a byte-level BPE tokenizer in which each word of the demo is one token."""
  import tokenizers
  import transformers
  from tokenizers import decoders, models, pre_tokenizers, processors, trainers

  core = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
  core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  core.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=1024,
    special_tokens=list(SPECIAL),
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  words = demo.vocabulary()
  template = conversation.TEMPLATES["vicuna_v1"]
  texts = [f" {word}" for word in words] + [*words]
  texts += [f"{template.user}{text}{template.assistant}" for text in MORE_TEXT]
  texts += [f"\n{prompt}{SHORT_ANSWER}" for prompt in CAPTION_PROMPTS]
  core.train_from_iterator(texts, trainer)
  core.post_processor = processors.TemplateProcessing(
    single="<s> $A", special_tokens=[("<s>", 1)]
  )
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=core,
    unk_token="<unk>",
    bos_token="<s>",
    eos_token="</s>",
    pad_token="<pad>",
    additional_special_tokens=["<image>"],
    model_max_length=512,
    chat_template=CHAT_TEMPLATE,
  )


# Renders a conversation as the package does with an empty system text.
CHAT_TEMPLATE = (
  "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
  "USER: {% if message['content'] is string %}{{ message['content'] }}{% else %}"
  "{% for part in message['content'] if part['type'] == 'image' %}<image>\n"
  "{% endfor %}{% for part in message['content'] if part['type'] == 'text' %}"
  "{{ part['text'] }}{% endfor %}{% endif %}{% else %} ASSISTANT: "
  "{% generation %}{% if message['content'] is string %}{{ message['content'] }}"
  "{% else %}{{ message['content'][0]['text'] }}{% endif %}{{ eos_token }}"
  "{% endgeneration %}{% endif %}{% endfor %}"
  "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


def make_fresh(folder: Path) -> None:
  """Writes a LLaVA directory with one million random parameters."""
  import transformers
  from transformers.models.llava import LlavaImageProcessorPil

  tokenizer = make_tokenizer()
  vocabulary = -(-len(tokenizer) // 64) * 64
  config = transformers.LlavaConfig(
    vision_config=transformers.CLIPVisionConfig(
      hidden_size=64,
      intermediate_size=256,
      num_hidden_layers=3,
      num_attention_heads=4,
      image_size=32,
      patch_size=8,
      projection_dim=64,
    ),
    text_config=transformers.LlamaConfig(
      vocab_size=vocabulary,
      hidden_size=128,
      intermediate_size=352,
      num_hidden_layers=3,
      num_attention_heads=4,
      num_key_value_heads=2,
      max_position_embeddings=512,
      rms_norm_eps=1e-5,
      bos_token_id=1,
      eos_token_id=2,
      pad_token_id=3,
    ),
    image_token_index=SPECIAL.index("<image>"),
    image_seq_length=16,
  )
  processor = LlavaImageProcessorPil(
    do_pad=True,
    size={"shortest_edge": 32},
    crop_size={"height": 32, "width": 32},
  )
  huggingface.write_fresh(folder, config, tokenizer, processor, SEED)


@dataclasses.dataclass(frozen=True)
class Drawn:
  """Tokenised samples and their tiles in memory, read like the rows of a pool."""

  encoder: conversation.Encoder
  examples: list[assembly.Example]

  def read(self, row: int) -> assembly.Example:
    return self.examples[row]


def draw_examples(folder: Path, progress) -> tuple[Drawn, Drawn]:
  """Draws and tokenises the samples of the first and of the second phase.

  Args:
    folder: the directory of the model.
    progress: called with the number of samples done and the total.
  """
  config = huggingface.read_config(folder)
  tokenizer, options = huggingface.read_processor(folder)
  images = BaseImages(options, ImageTokens(config.image_token))
  plain, chat = (
    conversation.Encoder(
      tokenizer,
      conversation.TEMPLATES[name],
      images,
      ROW_LENGTH,
      system="",
    )
    for name in ("plain", "vicuna_v1")
  )

  def encode(encoder, question, answer):
    return encoder.encode(
      [
        {"from": "human", "value": f"<image>\n{question}"},
        {"from": "gpt", "value": answer},
      ],
      [(1, 1)],
    )

  first, last = [], []
  for row, (image, caption) in enumerate(demo.caption_examples(CAPTIONS, SEED)):
    prompt = CAPTION_PROMPTS[row % len(CAPTION_PROMPTS)]
    sample = encode((plain, chat)[row % 2], prompt, caption)
    first.append((sample, (images.cut_tiles(image),)))
    progress(len(first), CAPTIONS + QUESTIONS)
  for image, question, answer in demo.head_examples(QUESTIONS, SEED):
    tiles = (images.cut_tiles(image),)
    first.append((encode(chat, question, answer), tiles))
    last.append((encode(chat, question + SHORT_ANSWER, answer), tiles))
    progress(len(first), CAPTIONS + QUESTIONS)
  return Drawn(chat, first), Drawn(chat, last)


def make_base(out: Path, console: Console) -> None:
  """Trains the base and writes it as a model directory."""
  with tempfile.TemporaryDirectory() as folder:
    fresh = Path(folder)
    make_fresh(fresh)
    with console.progress("draw", "picture") as progress:
      drawn, brief = draw_examples(fresh, progress)
    config = huggingface.read_config(fresh)
    params = huggingface.read_params(fresh, config)
    params, first = _train(config, params, drawn, EPOCHS, 2e-3, console)
    params, last = _train(config, params, brief, LAST_EPOCHS, 5e-4, console)
    out.mkdir(parents=True, exist_ok=True)
    huggingface.write_model(out, config, params, fresh)
  license_text = Path(__file__).parents[2] / "LICENSE"
  if license_text.exists():
    shutil.copyfile(license_text, out / "LICENSE")
  for name, losses in (("all", first), ("questions", last)):
    console.say(f"{name}: {len(losses):,} steps, {losses[0]:.3f} -> {losses[-1]:.3f}")
  console.say(f"see {out}")


def _train(config, params, drawn, epochs, learning_rate, console):
  """Trains on samples; returns the parameters and the loss of every step."""
  samples = [sample for sample, _ in drawn.examples]
  lengths = np.array([len(sample.tokens) for sample in samples])
  steps = row_packing.training_steps(
    len(samples), lengths, BATCH, epochs, SEED, ROW_LENGTH
  )
  shape = assembly.find_steps_shape(
    steps,
    assembly.Counts(
      tiles=np.ones(len(samples), int),
      taps=np.zeros(len(samples), int),
      supervised=np.array([sample.supervised.sum() for sample in samples]),
      answers=np.ones(len(samples), int),
    ),
    ROW_LENGTH,
    config.tiling,
  )
  steps = [loader.as_trees(step) for step in steps]
  options = loop.LoopOptions(
    OptimizerOptions(learning_rate, warmup=0.05, weight_decay=0.01, b2=0.99), "all"
  )
  with console.progress("pretrain", "step") as progress:
    params, metrics = loop.train(
      config,
      params,
      loader.read_batches(steps, loader.MakeBatch(drawn, shape)),
      len(steps),
      options,
      sharding.make_mesh(devices=jax.devices()[:1]),
      progress=progress,
    )
  return params, [step["loss"] for step in metrics]


def _main(_) -> None:
  with tempfile.TemporaryDirectory() as folder:
    make_base(Path(flags.FLAGS.out), Console(Path(folder) / "log.txt"))


if __name__ == "__main__":
  # Defined here and not on import, since other commands define --out too.
  flags.DEFINE_string("out", None, "Where the directory is written.", required=True)
  app.run(_main)
