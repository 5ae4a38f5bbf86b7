"""Imports transformers without torch, where only a base's small files are read."""

import sys


def import_transformers() -> None:
  """Imports transformers as if torch were not installed.

  transformers looks once whether torch is installed. If it is, reading a config or an
  image processor imports torch, which takes seconds and is not needed for them. After
  this function, transformers has none of its torch models until the process ends;
  `import torch` works as before. Where either is imported already, as by a plug-in of
  the user's, nothing is changed.
  """
  if "torch" in sys.modules or "transformers" in sys.modules:
    return
  sys.modules["torch"] = None  # type: ignore[assignment]  # "not installed" to Python
  try:
    import transformers  # noqa: F401
  finally:
    del sys.modules["torch"]
