"""Time of a layer's linear attention: by chunks of several sizes, and with trunks.

python benchmarks/linear_attention.py [--heads=4] [--width=64] [--repeats=5]

Samples share a beginning, as questions about one image do. In trees it is laid once,
and the state forks; whole, each sample is a segment of its own. Both are forward passes
over rows of one length, and so is the backward pass of whole samples, as in training.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from mllm_selector_jax.models import delta_rule

LENGTH = 2048
TRUNK, BRANCH, BRANCHES = 300, 40, 4  # tokens of an image, tokens and number of answers
SIZES = (16, 32, 64, 128)


def lay_out(rows: int, shared: bool) -> tuple[np.ndarray, np.ndarray | None, int]:
  """Segments and prefixes of rows, and how many samples a row holds."""
  sizes = [TRUNK, *[BRANCH] * BRANCHES] if shared else [TRUNK + BRANCH]
  trees = LENGTH // sum(sizes)
  segments = np.zeros(LENGTH, np.int32)
  prefixes = np.full(LENGTH, -1, np.int32)
  parts = np.repeat(np.arange(trees * len(sizes)), sizes * trees)
  segments[: len(parts)] = parts + 1
  if shared:
    branch = parts % len(sizes) > 0
    prefixes[: len(parts)] = np.where(branch, parts // len(sizes) * len(sizes) + 1, -1)
  segments, prefixes = (np.repeat(x[None], rows, 0) for x in (segments, prefixes))
  return segments, prefixes if shared else None, trees * max(len(sizes) - 1, 1)


def measure(function, arrays, repeats: int) -> float:
  """The shortest of several times, seconds."""
  jax.block_until_ready(function(*arrays))
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(function(*arrays))
    times.append(time.perf_counter() - start)
  return min(times)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rows", type=int, default=1, help="packed rows")
  parser.add_argument("--heads", type=int, default=4, help="value heads, and key heads")
  parser.add_argument("--width", type=int, default=64, help="channels of a head")
  parser.add_argument("--repeats", type=int, default=5)
  flags = parser.parse_args()
  rng = np.random.default_rng(0)
  shape = (flags.rows, LENGTH, flags.heads, flags.width)
  query, key, value = (rng.normal(size=shape).astype(np.float32) for _ in range(3))
  query, key = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (query, key))
  decay = -rng.exponential(0.1, shape[:3]).astype(np.float32)
  write = rng.uniform(size=shape[:3]).astype(np.float32)
  arrays = [jnp.asarray(x) for x in (query, key, value, decay, write)]
  for size in SIZES:
    found = []
    for shared in (True, False):
      segments, prefixes, samples = lay_out(flags.rows, shared)
      chunks = delta_rule.cut_rows(segments, prefixes, size)

      def forward(*arrays, chunks=chunks):
        return delta_rule.scan(*arrays, chunks)[0]

      seconds = measure(jax.jit(forward), arrays, flags.repeats)
      each = 1e3 * seconds / (samples * flags.rows)
      kind = "trunks" if shared else "whole"
      found.append(f"{kind} {1e3 * seconds:.0f} ms, {each:.2f} a sample")

    def backward(*arrays, forward=forward):
      return jax.grad(lambda *x: forward(*x).sum(), argnums=range(5))(*arrays)

    seconds = measure(jax.jit(backward), arrays, flags.repeats)
    found.append(f"with gradients {1e3 * seconds:.0f} ms")
    print(f"chunks of {size}: " + "; ".join(found), flush=True)


if __name__ == "__main__":
  main()
