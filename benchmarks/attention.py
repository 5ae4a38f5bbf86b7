"""How far splash (interpreted on CPUs) is from XLA: figures of docs/results/parity.md.

python benchmarks/attention.py [layers ...]
"""

import dataclasses
import sys

import jax
import numpy as np

from mllm_selector_jax.models import attention_check, mllm
from mllm_selector_jax.models.config import MllmConfig
from mllm_selector_jax.models.decoder_config import DecoderConfig
from mllm_selector_jax.models.vision_config import VisionConfig
from mllm_selector_jax.types import Batch

LENGTH = 256
STATES = attention_check.STATES


def make_batch(rng: np.random.Generator) -> Batch:
  """A row with a trunk, its two branches, a plain sample and padding."""
  sizes, trunks = (100, 40, 30, 50, 36), (-1, 1, 1, -1, -1)
  segments = np.repeat(np.array([1, 2, 3, 4, 0], np.int32), sizes)[None]
  prefixes = np.repeat(np.array(trunks, np.int32), sizes)[None]
  starts = (0, 100, 100, 0, 0)
  positions = np.concatenate(
    [start + np.arange(size) for start, size in zip(starts, sizes, strict=True)]
  )
  tokens = rng.integers(5, 40, (1, LENGTH)).astype(np.int32)
  predict = np.arange(220, dtype=np.int32)[None]
  return Batch(
    tokens,
    positions.astype(np.int32)[None],
    segments,
    np.full((1, LENGTH), -1, np.int32),
    np.zeros((1, 1, 16, 16, 3), np.uint8),
    predict,
    predict,
    np.ones(predict.shape, np.float32),
    predict[:, :1],
    prefixes,
  )


def main(layers: list[int]) -> None:
  vision = VisionConfig(16, 24, 2, 2, image_size=16, patch_size=8)
  for count in layers:
    decoder = DecoderConfig(40, 128, 256, count, heads=4, kv_heads=2, head_dim=32)
    config = MllmConfig(vision, decoder, image_token=4)
    for noise in (0, 0.05, 0.15):
      rng = np.random.default_rng(0)
      batch = make_batch(rng)
      params = jax.tree.map(
        lambda x, rng=rng, noise=noise: x + rng.normal(0, noise, x.shape).astype("f4"),
        mllm.init(config, 0),
      )

      def run(kernel, dtype, config=config, params=params, batch=batch):
        chosen = dataclasses.replace(config, attention=kernel, dtype=dtype)
        return attention_check.run_sample(chosen, params, batch)

      found = [f"layers {count} noise {noise}"]
      exact = run("xla", "float32")
      for dtype in ("float32", "bfloat16"):
        plain = run("xla", dtype)
        fast = run("splash", dtype)
        pairs = [(fast[place], plain[place]) for place in ("one attention", STATES)]
        pairs += [(plain[STATES], exact[STATES])] if dtype == "bfloat16" else []
        found += [f"{attention_check.relative_distance(*p):.1e}" for p in pairs]
      print("  ".join(found), flush=True)


if __name__ == "__main__":
  main([int(word) for word in sys.argv[1:]] or [6, 32])
