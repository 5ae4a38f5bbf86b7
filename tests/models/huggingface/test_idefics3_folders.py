"""Folders of Idefics 3 and SmolVLM: as transformers saves them, exports, refusals."""

import json

import jax
import numpy as np
import pytest
import transformers

from mllm_selector_jax.data.images.image_forms import BaseImages
from mllm_selector_jax.models import huggingface
from mllm_selector_jax.models.huggingface import processor
from mllm_selector_jax.types import InputError
from tests.data.test_image_forms import noise
from tests.idefics3_files import AROUND, PROCESSORS
from tests.models import packed, tiny
from tests.models.huggingface import bases
from tests.models.huggingface.test_parity import load_torch

SIZES = [(64, 90), (200, 40), (130, 130), (20, 25)]


@pytest.fixture(scope="module", params=tiny.MARKED)
def base(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp(request.param) / "base"
  return tiny.make_base(folder, family=request.param)


def test_what_transformers_saves_is_read(base, tmp_path):
  config = huggingface.read_config(base)
  params = packed.random_params(config)
  huggingface.write_model(tmp_path / "out", config, params, base)
  saved = bases.copy(base, tmp_path / "saved")
  load_torch(tmp_path / "out").save_pretrained(saved)
  assert huggingface.read_config(saved) == config
  found = huggingface.read_params(saved, config)
  jax.tree.map(np.testing.assert_array_equal, found, params)


def load_processor(folder):
  """The family's own processor, with the files of the directory."""
  fields = json.loads((folder / "processor_config.json").read_text())
  kinds = {kind.__name__: kind for kind in PROCESSORS.values()}
  return kinds[fields.pop("processor_class")](
    transformers.AutoImageProcessor.from_pretrained(folder, backend="pil"),
    transformers.AutoTokenizer.from_pretrained(folder),
    **fields,
  )


@pytest.mark.parametrize(
  "limits", [{}, {"max_tiles": 3}, {"resize_pixels": 32**2}, {"max_tiles": 99}]
)
def test_an_export_s_processor_makes_as_many_tokens_as_the_run(base, tmp_path, limits):
  tokenizer, options = huggingface.read_processor(base)
  tokens = huggingface.read_image_tokens(base, tokenizer)
  free, limited = BaseImages(options, tokens), BaseImages(options, tokens, **limits)
  config = huggingface.read_config(base)
  params = huggingface.read_params(base, config)
  out = tmp_path / "out"
  huggingface.write_model(out, config, params, base, images=limited.limited)
  assert huggingface.read_processor(out)[1] == limited.limited
  assert (limited.limited == options) == (limits in ({}, {"max_tiles": 99}))
  theirs, saved = load_processor(out), 0
  for size in SIZES:
    found = theirs(text=["<image>"], images=[noise(*size)], add_special_tokens=False)
    layout = limited.lay_out(*size)
    assert list(found["input_ids"][0]) == layout.tokens.tolist()
    assert np.asarray(found["pixel_values"]).shape[1] == layout.tiles
    saved += free.lay_out(*size).tiles - layout.tiles
  assert (saved > 0) == (limited.limited != options)


def set_vision(**values):
  return lambda config: config["vision_config"].update(values)


def set_whole(**values):
  return lambda value: value.update(values)


CONFIG, IMAGES, PROCESSOR = (
  f"{name}.json" for name in ("config", "preprocessor_config", "processor_config")
)


@pytest.mark.parametrize(
  ("file", "change", "message"),
  [
    (CONFIG, set_whole(scale_factor=3), "scale_factor is 3, only a divisor of the 4"),
    (CONFIG, set_vision(num_channels=1), "num_channels is 1"),
    (CONFIG, set_vision(image_size=100, patch_size=4), "25 patches along a side"),
    (IMAGES, set_whole(do_resize=False), "do_resize is off"),
    (IMAGES, set_whole(size={"height": 64, "width": 64}), "must have longest_edge"),
    (IMAGES, set_whole(size={"longest_edge": 5000}), "of 1 to 4096 pixels"),
    (IMAGES, set_whole(size={"longest_edge": 300}), "up to 10 x 10 tiles"),
    (
      IMAGES,
      set_whole(max_image_size={"longest_edge": 24}),
      "max_image_size is .*24.*vision_config.image_size of config.json is 32",
    ),
    (
      IMAGES,
      set_whole(image_processor_type="CLIPImageProcessor", size={"shortest_edge": 32}),
      "is of CLIPImageProcessor, but .* takes (Idefics3|SmolVLM)ImageProcessor",
    ),
    (PROCESSOR, set_whole(image_seq_len=169), "is 169, but a tile has 4 tokens"),
  ],
)
def test_what_cannot_be_followed_is_named(base, tmp_path, file, change, message):
  folder = bases.copy(base, tmp_path / "base")
  bases.edit_json(folder / file, change)
  with pytest.raises(InputError, match=message):
    huggingface.read_config(folder)


def test_a_mark_that_the_tokenizer_lacks_is_named(base, tmp_path):
  folder = bases.copy(base, tmp_path / "base")
  tokenizer = tiny.make_tokenizer()
  with pytest.raises(InputError, match=f"no token {AROUND}, which stands beside"):
    huggingface.read_image_tokens(folder, tokenizer)


@pytest.mark.parametrize("split", [True, False])
def test_what_is_written_is_read_back(base, tmp_path, split):
  folder = bases.copy(base, tmp_path / "base")
  bases.edit_json(folder / IMAGES, set_whole(do_image_splitting=split))
  _, options = huggingface.read_processor(folder)
  assert (options.split, options.grid, options.rotate) == (split, 2, True)
  described = processor.describe_image_options(options)
  config = transformers.AutoConfig.from_pretrained(folder)
  again = processor.read_image_options(folder, config, described=described)
  assert again == options
  kind = "SmolVLM" if config.model_type == "smolvlm" else "Idefics3"
  assert described["image_processor_type"] == f"{kind}ImageProcessor"
