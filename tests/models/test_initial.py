import jax
import numpy as np

from mllm_selector_jax.models import mllm
from tests.models import packed


def test_the_seed_decides():
  first, again, other = (mllm.init(packed.CONFIG, seed) for seed in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert (first["decoder"]["head"] != other["decoder"]["head"]).any()


def test_shapes_and_types_are_the_promised_ones():
  def shape(x):
    return x.shape, x.dtype

  assert jax.tree.map(shape, mllm.init(packed.CONFIG, 0)) == jax.tree.map(
    shape, mllm.abstract(packed.CONFIG)
  )


def test_scales_are_the_documented_ones():
  config = packed.make_config(decoder_width=64, decoder_mlp=96, decoder_layers=8)
  params = mllm.init(config, 0)["decoder"]
  np.testing.assert_array_equal(params["norm"]["scale"], 1)
  deviations = {
    "gate": 64**-0.5,
    "down": 96**-0.5 / 4,  # sqrt(2 * 8 layers)
    "query": 64**-0.5,
    "out": 16**-0.5 / 4,
  }
  for name, wanted in deviations.items():
    found = np.std(params["layers"][name]["kernel"])
    np.testing.assert_allclose(found, wanted, rtol=0.05)
  np.testing.assert_allclose(np.std(params["head"]), 0.02, rtol=0.05)


def test_layers_and_kinds_differ():
  layers = mllm.init(packed.CONFIG, 0)["decoder"]["layers"]
  assert (layers["key"]["kernel"][0] != layers["key"]["kernel"][1]).all()
  assert (layers["key"]["kernel"] != layers["value"]["kernel"]).all()
