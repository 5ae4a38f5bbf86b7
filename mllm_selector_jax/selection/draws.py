"""Random draws that depend on content: each is a hash of a seed and a row's key.

The draw of a row does not depend on the other rows, on their order or on the device.
A selection is therefore the same everywhere, and one with a larger budget contains
one with a smaller budget.
"""

import zlib

import numpy as np
from jaxtyping import Float, UInt64

from mllm_selector_jax.selection.sorting import chunks

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def splitmix(x: UInt64[np.ndarray, " N"]) -> UInt64[np.ndarray, " N"]:
  """The output function of SplitMix64 (Steele, Lea and Flood, 2014), a bijection."""
  x = x + _STEP
  x = (x ^ (x >> np.uint64(30))) * _MULTIPLIERS[0]
  x = (x ^ (x >> np.uint64(27))) * _MULTIPLIERS[1]
  return x ^ (x >> np.uint64(31))


def draw(
  rng: int, key: UInt64[np.ndarray, " N"], purpose: str
) -> UInt64[np.ndarray, " N"]:
  """Draws a uniform 64-bit number for each key; equal keys give equal draws.

  Args:
    rng: the seed, any integer.
    key: content hashes of the rows.
    purpose: what the draw is for. Draws for different purposes are independent, so
      that the random control does not favour the rows of the selection that is
      compared with it.
  """
  salt = np.array([rng & (2**64 - 1)], np.uint64)
  salt = splitmix(splitmix(salt) ^ np.uint64(zlib.crc32(purpose.encode())))
  key = np.asarray(key, np.uint64)
  drawn = np.empty(len(key), np.uint64)
  for part in chunks(len(key)):
    drawn[part] = splitmix(key[part] ^ salt)
  return drawn


def gumbel(bits: UInt64[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
  """Transforms uniform draws to standard Gumbel noise.

  The noise is rounded to multiples of 2^-32, since the last bits of a logarithm
  differ between processors.
  """
  uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
  return np.rint(-np.log(-np.log(uniform)) * 2.0**32) * 2.0**-32
