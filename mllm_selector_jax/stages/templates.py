"""The templates of the pages that people open, escaped and strict."""

import importlib.resources

import jinja2

_FOLDERS = ("compare", "report")


def make_environment() -> jinja2.Environment:
  """Finds a template by its name in the folders of the stages that have pages."""
  folders = [
    importlib.resources.files(f"mllm_selector_jax.stages.{name}") for name in _FOLDERS
  ]

  def load(name: str) -> str:
    found = next(each / name for each in folders if (each / name).is_file())
    return found.read_text(encoding="utf-8")

  return jinja2.Environment(
    loader=jinja2.FunctionLoader(load),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
