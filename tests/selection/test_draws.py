"""Draws from content."""

import numpy as np

from mllm_selector_jax.selection import draws


def splitmix(x):
  """SplitMix64 with Python's whole numbers."""
  top = 2**64
  x = (x + 0x9E3779B97F4A7C15) % top
  x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % top
  x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % top
  return x ^ (x >> 31)


def test_splitmix_equals_plain_python():
  x = [0, 1, 2**63, 2**64 - 1, 123456789]
  found = draws.splitmix(np.array(x, np.uint64))
  assert found.tolist() == [splitmix(each) for each in x]
  # The generator's published first outputs for the state 1234567.
  assert splitmix(1234567) == 6457827717110365317


def test_draws_go_by_seed_purpose_and_key_alone():
  key = np.arange(1000, dtype=np.uint64)
  first = draws.draw(0, key, "kl")
  np.testing.assert_array_equal(first[::-1], draws.draw(0, key[::-1], "kl"))
  for other in (
    draws.draw(1, key, "kl"),
    draws.draw(0, key, "random"),
    draws.draw(-1, key, "kl"),
  ):
    assert not np.any(first == other)
    order = np.argsort(first).argsort(), np.argsort(other).argsort()
    assert abs(np.corrcoef(*order)[0, 1]) < 0.1


def test_gumbel_noise_has_its_mean_and_spread():
  bits = draws.draw(0, np.arange(200_000, dtype=np.uint64), "noise")
  noise = draws.gumbel(bits)
  assert abs(noise.mean() - np.euler_gamma) < 0.01
  assert abs(noise.std() - np.pi / np.sqrt(6)) < 0.01
  extremes = draws.gumbel(np.array([0, 2**64 - 1], np.uint64))
  assert np.isfinite(extremes).all()
