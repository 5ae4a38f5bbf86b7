"""Agreement with transformers' vision towers of native resolution, float32."""

import functools
import itertools
import re

import hypothesis
import jax
import numpy as np
import pytest
import torch
import transformers
from hypothesis import strategies as st

from mllm_selector_jax.models import mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.huggingface import mapping
from mllm_selector_jax.models.huggingface.model_families import find_family
from tests import compiling
from tests.models import native_inputs, packed, tiny_qwen
from tests.models.huggingface.test_parity import run

torch.set_num_threads(1)

CASES = {
  "qwen2": {"family": "qwen2_vl"},
  "qwen2, five layers": {
    "family": "qwen2_vl",
    "tie_word_embeddings": True,
    "vision_depth": 5,
    "vision_embed_dim": 24,
    "vision_num_heads": 3,
  },
  "qwen2.5": {"family": "qwen2_5_vl"},
  "qwen2.5, six layers": {
    "family": "qwen2_5_vl",
    "vision_depth": 6,
    "vision_fullatt_block_indexes": [2, 5],
  },
  "qwen2.5, all layers see all": {
    "family": "qwen2_5_vl",
    "vision_fullatt_block_indexes": [0, 1, 2],
  },
  "qwen2.5, large windows": {
    "family": "qwen2_5_vl",
    "vision_window_size": 32,
    "vision_num_heads": 4,
  },
  "qwen2.5, windows in the decoder": {
    "family": "qwen2_5_vl",
    "use_sliding_window": True,
    "sliding_window": 5,
    "max_window_layers": 1,
  },
  "qwen3": {"family": "qwen3_vl"},
  "qwen3, six layers": {
    "family": "qwen3_vl",
    "tie_word_embeddings": True,
    "num_hidden_layers": 5,
    "vision_depth": 6,
    "vision_deepstack_visual_indexes": [1, 3, 4],
  },
  "glm4": {"family": "glm4v"},
  "glm4.6": {"family": "glm46v"},
  "glm4, six layers": {
    "family": "glm4v",
    "tie_word_embeddings": True,
    "num_hidden_layers": 5,
    "vision_depth": 6,
    "vision_num_heads": 4,
    "vision_attention_bias": True,
    "vision_rms_norm_eps": 1e-3,
  },
  "qwen3, experts": {"family": "qwen3_vl_moe", "num_hidden_layers": 5},
  "qwen3, no deepstack": {
    "family": "qwen3_vl",
    "vision_deepstack_visual_indexes": [],
  },
  "qwen3.5": {"family": "qwen3_5"},
  "qwen3.5, seven layers": {
    "family": "qwen3_5",
    "tie_word_embeddings": True,
    "num_hidden_layers": 7,
    "layer_types": tiny_qwen.name_layers("llfllfl"),
  },
  "qwen3.5, no period": {
    "family": "qwen3_5",
    "num_hidden_layers": 6,
    "layer_types": tiny_qwen.name_layers("fllffl"),
    "linear_conv_kernel_dim": 2,
    "attention_bias": True,
  },
}


def read(hf_config, **fields):
  family = find_family(hf_config)
  return MllmConfig(
    family.read_tower(hf_config.vision_config),
    family.read_decoder(hf_config.text_config, tied=hf_config.tie_word_embeddings),
    **family.read(hf_config),
    **fields,
  )


def load_visual(hf_config, config, params):
  """The tower of transformers with our parameters."""
  whole = transformers.AutoModelForImageTextToText.from_config(hf_config)
  model = whole.model.visual.eval()
  own = {
    name.rpartition("visual.")[2]: torch.tensor(array)
    for name, array in mapping.to_tensors(config, params)
    if "visual." in name
  }
  missing, unexpected = model.load_state_dict(own, strict=False)
  assert not unexpected and not missing
  return model


@functools.partial(jax.jit, static_argnums=0, compiler_options=compiling.AS_USERS)
def see(config, params, images, places):
  """The features of tiles, as the decoder has them, and those of deepstack."""
  shards, tiles = images.shape[:2]
  index = np.arange(tiles)[None].repeat(shards, 0)
  found = mllm.embed(config, params, 0 * index, index, images, places=places)
  return found.x, found.added


def assert_towers_agree(hf_config, shards, spare=2, tolerance=1e-5):
  """Shards of grids, against each image alone in torch."""
  config = read(hf_config)
  params = packed.random_params(config)
  model = load_visual(hf_config, config, params)
  rng = np.random.default_rng(0)
  drawn = [
    [(grid, native_inputs.draw_tiles(config, rng, grid)) for grid in shard]
    for shard in shards
  ]
  most = spare + max(sum(len(cut) for _, cut in shard) for shard in drawn)
  images, places = native_inputs.pack_images(config, drawn, most)
  x, added = see(config, params, images, places)
  assert np.isfinite(x).all()
  for shard, found in enumerate(drawn):
    start = 0
    for grid, cut in found:
      inputs = native_inputs.make_native_inputs(config, [(grid, cut)])
      with torch.no_grad():
        out = model(inputs["pixel_values"], inputs["image_grid_thw"])
      index = start + native_inputs.sort_raster(config, grid)
      wanted = [out.pooler_output, *getattr(out, "deepstack_features", [])]
      states = [x, *(() if added is None else added)]
      assert len(wanted) == len(states) == 1 + len(config.deepstack)
      for state, theirs in zip(states, wanted, strict=True):
        theirs = theirs.numpy()
        assert theirs.std() > 0.3  # or the tolerance would say nothing
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(
          np.asarray(state)[shard, index], theirs, atol=tolerance * scale
        )
      start += len(cut)


# Odd grids, of which windows are cut off, beside single tiles and long strips; of so
# many patches that plain XLA goes by blocks of keys, and of fewer.
LONG = [[(9, 10), (5, 7), (1, 1), (2, 3)], [(1, 13), (4, 4)], []]
SHORT = [[(5, 7), (1, 1), (2, 3)], [(1, 13)]]


@pytest.mark.parametrize("name", CASES)
def test_towers_agree(name):
  shards = LONG if name in ("qwen2", "qwen2.5", "qwen3", "glm4") else SHORT
  assert_towers_agree(tiny_qwen.make_hf_config(**CASES[name]), shards)


def load_whole(hf_config, config, params):
  """The model of transformers with our parameters."""
  model = transformers.AutoModelForImageTextToText.from_config(hf_config).eval()
  rules = ((r"^visual", "model.visual"), (r"^model(?!\.(language|vis))", LANGUAGE))
  own = {}
  for name, array in mapping.to_tensors(config, params):
    for pattern, new in rules:
      name = re.sub(pattern, new, name)
    if ".experts." in name:  # in memory they are transposed
      array = array.swapaxes(1, 2)
    own[name] = torch.tensor(array)
  missing, unexpected = model.load_state_dict(own, strict=False)
  tied = ["lm_head.weight"] if config.decoder.tied else []
  assert not unexpected and missing == tied
  return model


LANGUAGE = "model.language_model"
# Rows of no image, of one and of three, of odd sizes, in one turn and in several.
ROWS = [
  [(5, (5, 7), 4), (9,), (2, (1, 1), 3, (1, 9), 1, (3, 2), 2)],
  [(12,), (1, (4, 5), 6, (2, 1), 3)],
  [(3,)],
]


def assert_packed_agree(config, params, model, drawn, batch, make_row, tolerance=1e-5):
  """Packed rows of examples, against each example on its own in torch.

  `make_row` gives what transformers takes for an example, from the config and it.
  """
  logits, losses = map(np.asarray, run(config, params, batch))
  for row, examples in enumerate(drawn):
    start = learned = 0
    for example in examples:
      inputs = make_row(config, example)
      with torch.no_grad():
        wanted = model(**inputs).logits[0].numpy()
      assert wanted.std() > 0.3  # or the tolerance would say nothing
      count = len(wanted)
      scale = max(1, np.abs(wanted).max())
      np.testing.assert_allclose(
        logits[row, start : start + count], wanted, atol=tolerance * scale
      )
      loss = torch.nn.functional.cross_entropy(
        torch.tensor(wanted[:-1]), inputs["input_ids"][0, 1:]
      )
      own = losses[row, learned : learned + count - 1].mean()
      np.testing.assert_allclose(own, loss, rtol=tolerance)
      start, learned = start + count, learned + count - 1


def assert_models_agree(hf_config, rows=ROWS):
  """Packed rows, against each of their samples on its own in torch."""
  config = read(hf_config)
  params = packed.random_params(config)
  model = load_whole(hf_config, config, params)
  rng = np.random.default_rng(0)
  drawn = [
    [native_inputs.draw_sample(config, rng, parts) for parts in row] for row in rows
  ]
  batch = native_inputs.pack_rows(config, drawn, 128)
  make_row = native_inputs.make_torch_row
  assert_packed_agree(config, params, model, drawn, batch, make_row)


@pytest.mark.parametrize("name", CASES)
def test_models_agree(name):
  assert_models_agree(tiny_qwen.make_hf_config(**CASES[name]))


@st.composite
def overrides(draw):
  """Any tiny model of these families."""

  def one(*values):
    return draw(st.sampled_from(values))

  family = one(*tiny_qwen.FAMILIES)
  depth, heads, layers = one(1, 2, 3, 5), one(1, 2, 3), one(1, 2, 3, 5)
  patch, merge = one(2, 3, 4), one(1, 2, 3)
  width = "embed_dim" if family == "qwen2_vl" else "hidden_size"
  found = {
    "family": family,
    "num_hidden_layers": layers,
    "num_key_value_heads": one(1, 2, 4),
    "tie_word_embeddings": draw(st.booleans()),
    "vision_depth": depth,
    "vision_num_heads": heads,
    "vision_patch_size": patch,
    "vision_spatial_merge_size": merge,
    f"vision_{width}": heads * one(4, 8, 12),
  }
  numbers = st.integers(0, depth - 1)
  if family == "qwen2_5_vl":
    found["vision_window_size"] = patch * merge * one(1, 2, 3, 4)
    found["vision_fullatt_block_indexes"] = sorted(draw(st.sets(numbers)))
  if family == "qwen3_vl_moe":
    found["num_experts"] = one(2, 5, 8)
    found["num_experts_per_tok"] = one(1, 2)
  if family.startswith("qwen3_vl"):
    states = draw(st.sets(numbers, max_size=layers))
    found["vision_deepstack_visual_indexes"] = sorted(states)
    found["vision_num_position_embeddings"] = one(1, 16, 49)
    found["attention_bias"] = draw(st.booleans())
    found["head_dim"] = one(8, 12)
  pairs, share = found.get("head_dim", 8) // 2, {}
  if family.startswith("glm4"):
    del found["num_key_value_heads"]
    found["vision_image_size"] = patch * one(1, 4, 7)
    found["vision_attention_bias"] = draw(st.booleans())
    pairs, factor = one((4, 0.5), (8, 1.0))
    share = {"partial_rotary_factor": factor}
  if family == "qwen3_5":
    kinds = draw(st.lists(st.sampled_from("lf"), min_size=layers, max_size=layers))
    kinds[one(*range(layers))] = "f"
    found |= {
      "layer_types": tiny_qwen.name_layers("".join(kinds)),
      "linear_conv_kernel_dim": one(1, 3, 4),
      "linear_num_value_heads": one(2, 6),
      "vision_num_position_embeddings": one(16, 49),
      "head_dim": one(8, 16),
    }
    factor = one(0.5, 0.75)
    pairs = round(factor * found["head_dim"]) // 2
    share = {"partial_rotary_factor": factor}
  row, column = (draw(st.integers(0, pairs // 3)) for _ in range(2))
  sections = pairs - row - column, row, column
  found["rope_parameters"] = tiny_qwen.rope(*sections, **share)
  return found


SIDE = st.integers(1, 6)
PART = st.integers(1, 6) | st.tuples(SIDE, SIDE)
PARTS = st.lists(PART, min_size=1, max_size=4).map(lambda parts: (1, *parts, 1))


@hypothesis.settings(max_examples=12, deadline=None, derandomize=True, database=None)
@hypothesis.given(overrides(), st.lists(PARTS, min_size=1, max_size=3))
def test_models_agree_whatever_the_configuration(chosen, samples):
  hypothesis.assume(sum(map(count_tokens, itertools.chain(*samples))) <= 128)
  assert_models_agree(tiny_qwen.make_hf_config(**chosen), [samples])


def count_tokens(part):
  return part if isinstance(part, int) else part[0] * part[1] + 2
