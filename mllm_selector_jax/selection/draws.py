"""Randomness by content: every draw is a hash of a seed and a row's key.

A row's draw does not depend on the other rows, on their order or on the device,
so a selection is the same everywhere, and a larger budget holds a smaller one.
"""

import zlib

import numpy as np
from jaxtyping import Float, UInt64

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
  """Uniform 64-bit draws; equal keys give equal draws.

  Args:
    rng: the seed, any integer.
    key: content hashes of the rows.
    purpose: what the draw is for; other purposes draw independently, so a
      random control does not share its rows with what it controls.
  """
  salt = np.array([rng & (2**64 - 1)], np.uint64)
  salt = splitmix(splitmix(salt) ^ np.uint64(zlib.crc32(purpose.encode())))
  return splitmix(np.asarray(key, np.uint64) ^ salt)


def gumbel(bits: UInt64[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
  """Standard Gumbel noise from uniform draws.

  Rounded to 2^-32: the last bits of a logarithm differ between processors.
  """
  uniform = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
  return np.rint(-np.log(-np.log(uniform)) * 2.0**32) * 2.0**-32
