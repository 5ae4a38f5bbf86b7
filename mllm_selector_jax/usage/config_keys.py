"""Reads the keys, default values and comments of `configs/default.py` from its text.

The text is parsed and not executed, so that the help need not import ml_collections.
"""

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mllm_selector_jax import configs

_RECIPE = "_add_recipe"
# A sentence ends before a blank and a capital letter or a quotation mark. A list that a
# colon introduces, one item a line, is not a part of it.
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z\"`])|(?<=:)\s*\n\s+")


class ConfigKey(NamedTuple):
  """A key of the config.

  Attributes:
    default: the value in `default.py`.
    comment: all that its comment says; lines are separated by newlines.
  """

  default: Any
  comment: str

  @property
  def sentence(self) -> str:
    """The first sentence of the comment, on one line."""
    first = _SENTENCE_END.split(self.comment, maxsplit=1)[0]
    line = " ".join(first.split()).rstrip(":.")
    return f"{line[:1].upper()}{line[1:]}." if line else ""


@functools.cache
def read_keys() -> dict[str, ConfigKey]:
  """Reads every key of the default config, by its dotted name, in the file's order."""
  text = find_default().read_text()
  comments = _read_comments(text)
  functions = {
    node.name: node
    for node in ast.parse(text).body
    if isinstance(node, ast.FunctionDef)
  }
  keys: dict[str, ConfigKey] = {}
  for statement in functions["get_config"].body:
    for name, key in _read_statement(statement, comments):
      if key.comment or name not in keys:
        keys[name] = key
      else:
        keys[name] = keys[name]._replace(default=key.default)
    if section := _find_recipe(statement):
      for inner in functions[_RECIPE].body:
        for name, key in _read_statement(inner, comments):
          keys[f"{section}.{name}"] = key
  return keys


def find_default() -> Path:
  """Returns the path of `default.py`."""
  return Path(next(iter(configs.__path__))) / "default.py"


def _read_comments(text: str) -> dict[int, tuple[bool, str]]:
  """Returns the comment of each line, and whether the line has nothing else."""
  tokens = tokenize.generate_tokens(io.StringIO(text).readline)
  return {
    token.start[0]: (
      token.line.lstrip().startswith("#"),
      token.string.removeprefix("#").removeprefix(" "),
    )
    for token in tokens
    if token.type == tokenize.COMMENT
  }


def _read_statement(
  statement: ast.stmt, comments: dict[int, tuple[bool, str]]
) -> Iterator[tuple[str, ConfigKey]]:
  """Yields the key that an assignment gives a value; sections are none."""
  if not isinstance(statement, ast.Assign):
    return
  _, _, name = ast.unparse(statement.targets[0]).partition(".")
  if not name or "ConfigDict" in ast.unparse(statement.value):
    return
  first, last = statement.lineno, statement.end_lineno or statement.lineno
  before: list[str] = []
  line = first - 1
  while comments.get(line, (False,))[0]:
    before.insert(0, comments[line][1])
    line -= 1
  inside = [comments[line][1] for line in range(first, last + 1) if line in comments]
  yield name, ConfigKey(_read_value(statement.value), "\n".join(before + inside))


def _read_value(value: ast.expr) -> Any:
  if not isinstance(value, ast.Call):
    return ast.literal_eval(value)
  # config_dict.placeholder(type) or config_dict.FieldReference(value, field_type=type)
  reference = ast.unparse(value.func).endswith("FieldReference")
  return ast.literal_eval(value.args[0]) if reference else None


def _find_recipe(statement: ast.stmt) -> str:
  """Returns the section to which a statement adds the settings of a training, or ""."""
  text = ast.unparse(statement)
  return text.removeprefix(f"{_RECIPE}(cfg.")[:-1] if text.startswith(_RECIPE) else ""


def list_shipped() -> list[str]:
  """Lists the names of the configs that the package ships."""
  return sorted(
    path.stem
    for path in find_default().parent.glob("*.py")
    if not path.name.startswith("_")
  )
