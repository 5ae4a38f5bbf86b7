"""What checks the package's annotations in tests: beartype, told of numpy's scalars.

jaxtyping's import hook puts `check` around every function of the package, so that an
array whose shape or dtype is not the annotated one fails the test that made it.
"""

from collections.abc import Callable

import beartype
import numpy as np

# Classes that say themselves which field has a value of the wrong type; their tests
# read those messages.
CHECK_THEMSELVES = ("SelectOptions.__init__",)

# As PEP 484 has it, an int is a float; a scalar that comes out of an array counts as
# the Python number that it stands for.
_check = beartype.beartype(
  conf=beartype.BeartypeConf(
    hint_overrides=beartype.FrozenDict(
      {
        bool: bool | np.bool_,
        int: int | np.integer,
        float: float | int | np.floating | np.integer,
      }
    )
  )
)


def check(function: Callable) -> Callable:
  """Returns the function, which now raises where an annotation is not true."""
  if function.__qualname__ in CHECK_THEMSELVES:
    return function
  return _check(function)
