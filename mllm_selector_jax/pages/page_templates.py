"""Loads the templates of the pages."""

import jinja2


def make_environment() -> jinja2.Environment:
  """Make the environment of the templates in this folder.

  Values are escaped, and a name that is not defined raises an error.
  """
  return jinja2.Environment(
    loader=jinja2.PackageLoader("mllm_selector_jax", "pages"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
