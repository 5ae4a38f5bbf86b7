"""Defines `Array`, the type of arrays that functions of jax take."""

import jax
import numpy as np

# Functions of jax also accept numpy arrays.
Array = jax.Array | np.ndarray
