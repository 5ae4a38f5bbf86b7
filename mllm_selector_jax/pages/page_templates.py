"""The templates of the pages that people open, escaped and strict."""

import jinja2


def make_environment() -> jinja2.Environment:
  """Finds the templates that lie beside the modules of the pages."""
  return jinja2.Environment(
    loader=jinja2.PackageLoader("mllm_selector_jax", "pages"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
