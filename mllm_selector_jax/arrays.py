"""The arrays that functions of jax take."""

import jax
import numpy as np

# Outside of `jax.jit`, an array of numpy's is as good as one of jax's.
Array = jax.Array | np.ndarray
