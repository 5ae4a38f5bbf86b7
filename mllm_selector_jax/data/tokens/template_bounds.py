"""Renders a base's chat template within bounds of work, memory and time.

A chat template comes with a model and is a program. transformers' sandbox keeps it from
reading files and attributes, but not from running for ever (`{% for %}` inside
`{% for %}`) or from filling the memory (`'a' * 10 ** 12`). Here every turn of a loop,
every call and every operation whose result may be much larger than its operands is
counted before it is carried out.
"""

import contextlib
import functools
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Published templates need less than 1,000 for a conversation of one round.
MOST_WORK = 2_000_000  # characters and items of one rendering
PAIR = 200  # more of them for each pair of messages, over which some templates loop
CALL = 20  # characters that take about as long as a call or a turn of a loop
MOST_SECONDS = 5.0  # of processor time, of one rendering
MOST_SOURCE = 1 << 20  # characters of a template
# Results of these may have as many characters as the product of their operands.
_OPERATORS = frozenset(("*", "**", "%", "+"))
_DIGITS = re.compile(r"\d{4,}")  # a width inside a format
_FORMATS = ("%", "format", "format_map")
# These give another text at each rendering, or are loops of their own.
_LEFT_OUT = {"filters": ("random",), "globals": ("lipsum",)}

Spans = list[tuple[int, int]]
_RENDERING = threading.local()  # has the meter of a thread's rendering


class TemplateLimitError(ValueError):
  """A template takes more work than any published one."""


class Meter:
  """Counts what one rendering does, and ends it when that is too much.

  Args:
    messages: how many are rendered.
  """

  def __init__(self, messages: int = 0):
    self._work = 0.0
    self._most = MOST_WORK + PAIR * messages**2
    self._ends = time.thread_time() + MOST_SECONDS * (1 + messages / 100)

  def add(self, work: float) -> None:
    """Counts an operation that is about to be carried out.

    Raises:
      TemplateLimitError: the operation or the whole rendering is too large.
    """
    self._work += work
    if self._work > self._most:
      raise TemplateLimitError(
        "it does more than any published template (a loop without an end, or a text or"
        " number without bounds)"
      )
    if time.thread_time() > self._ends:
      raise TemplateLimitError("it runs for seconds")


def measure_size(value: Any, formats: bool = False) -> float:
  """Returns how large a value is, with all that it contains.

  Args:
    value: a value of a template.
    formats: whether texts may be formats, whose widths count too.
  """
  size, left = 0.0, [value]
  while left and size <= MOST_WORK:
    item = left.pop()
    size += 1
    if isinstance(item, str | bytes):
      size += len(item)
      if formats and isinstance(item, str):
        # More than fifteen digits are too many whatever they are.
        size += sum(float(digits[:16]) for digits in _DIGITS.findall(item))
    elif isinstance(item, int | float):
      # The size of a number that is no float any more (1e400) is too large, too.
      size += min(abs(item), 10.0**15)
    elif isinstance(item, Mapping):
      left.extend(item.values())
      left.extend(item.keys())
    elif isinstance(item, list | tuple | set | frozenset):
      left.extend(item)
    elif isinstance(item, range):
      size += len(item)
  return size


def multiply_sizes(values: Sequence[Any], formats: bool = False) -> float:
  """Returns the product of the sizes of values, at most somewhat over MOST_WORK."""
  product = 1.0
  for value in values:
    product *= measure_size(value, formats)
    if product > MOST_WORK:
      break
  return product


class _Bounds:
  """What a bounded environment has beside jinja's; mixed into its class."""

  intercepted_binops = _OPERATORS

  @property
  def meter(self) -> Meter:
    """The meter of this thread's rendering."""
    return _RENDERING.meter

  def tick(self) -> bool:
    """Counts one turn of a loop; true, so that it may stand in a condition."""
    self.meter.add(CALL)
    return True

  def join(self, *parts: Any) -> str:
    """Joins the operands of `~`."""
    return "".join([str(self.weigh(part)) for part in parts])

  def weigh(self, value: Any) -> Any:
    """Counts a value that is about to be written or compared, and returns it."""
    self.meter.add(measure_size(value))
    return value

  def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
    if operator == "+":
      self.meter.add(measure_size([left, right]))
    else:
      self.meter.add(multiply_sizes([left, right], operator in _FORMATS))
    return super().call_binop(context, operator, left, right)  # type: ignore[misc]

  def call(_self, _context: Any, _function: Any, /, *args: Any, **kwargs: Any) -> Any:
    values = [*args, *kwargs.values()]
    method = getattr(_function, "__wrapped__", _function)  # jinja wraps str.format
    owner = getattr(method, "__self__", None)
    if isinstance(owner, str | bytes | int | float | list | tuple | dict):
      name = getattr(method, "__name__", "")
      _self.meter.add(CALL + multiply_sizes([owner, *values], name in _FORMATS))
    else:
      _self.meter.add(CALL + measure_size(values))
    return super().call(_context, _function, *args, **kwargs)  # type: ignore[misc]

  def _parse(self, source: str, name: str | None, filename: str | None) -> Any:
    tree = super()._parse(source, name, filename)  # type: ignore[misc]
    _add_counts(tree)
    return tree


def _add_counts(tree: Any) -> None:
  """Has a parsed template count the turns of loops, and what it joins and compares."""
  from jinja2 import nodes

  def call(name: str, values: list, line: int) -> Any:
    attribute = nodes.EnvironmentAttribute(name)
    return nodes.Call(attribute, values, [], None, None).set_lineno(line)

  for loop in list(tree.find_all(nodes.For)):
    line = loop.lineno
    loop.body.insert(0, nodes.ExprStmt(call("tick", [], line)).set_lineno(line))
    if loop.test is not None:
      loop.test = nodes.And(call("tick", [], line), loop.test).set_lineno(line)
  for comparison in list(tree.find_all(nodes.Compare)):
    for side in (comparison, *comparison.ops):
      side.expr = call("weigh", [side.expr], comparison.lineno)
  _replace_joins(tree, call)


def _replace_joins(node: Any, call: Callable[[str, list, int], Any]) -> None:
  """Replaces every `~` below a node by a call of `_Bounds.join`."""
  from jinja2 import nodes

  for field, value in node.iter_fields():
    items = value if isinstance(value, list) else [value]
    for place, item in enumerate(items):
      if not isinstance(item, nodes.Node):
        continue
      _replace_joins(item, call)
      if isinstance(item, nodes.Concat):
        items[place] = call("join", item.nodes, item.lineno)
    if not isinstance(value, list):
      setattr(node, field, items[0])


@functools.cache
def _bounded_class() -> type:
  from jinja2.sandbox import ImmutableSandboxedEnvironment

  return type("BoundedEnvironment", (_Bounds, ImmutableSandboxedEnvironment), {})


def _bound(function: Callable, count: Callable[[list[Any]], float]) -> Callable:
  """Returns a filter or test that counts its values before it is called."""

  @functools.wraps(function)
  def bounded(*values: Any, **named: Any) -> Any:
    _RENDERING.meter.add(CALL + count([*values, *named.values()]))
    return function(*values, **named)

  return bounded


def _make_environment() -> Any:
  """Makes a bounded environment with all that transformers gives to templates."""
  from transformers.utils import chat_template_utils

  # The environment is made anew for each template, and reachable by one alone.
  theirs = chat_template_utils._compile_jinja_template("").environment
  ours: Any = object.__new__(_bounded_class())
  ours.__dict__.update(theirs.__dict__)
  ours.linked_to, ours.overlayed, ours.cache = theirs, True, None
  for table, names in _LEFT_OUT.items():
    kept = {k: v for k, v in getattr(theirs, table).items() if k not in names}
    setattr(ours, table, kept)
  ours.filters = {
    name: _bound(each, functools.partial(multiply_sizes, formats=name == "format"))
    for name, each in ours.filters.items()
  }
  ours.tests = {name: _bound(each, measure_size) for name, each in ours.tests.items()}
  ours.finalize = ours.weigh
  ours.extensions = {name: each.bind(ours) for name, each in theirs.extensions.items()}
  return ours


@functools.lru_cache(maxsize=8)
def _compile(source: str) -> Any:
  _RENDERING.meter = Meter()  # constants are worked out here
  if len(source) > MOST_SOURCE:
    raise TemplateLimitError(f"it has {len(source):,} characters")
  return _make_environment().from_string(source)


def render_template(
  source: str,
  messages: Sequence[Mapping[str, Any]],
  prompt: bool,
  marks_learned: bool,
  tokens: Mapping[str, Any],
) -> tuple[str, Spans]:
  """Renders messages as transformers' `render_jinja_template` does, within bounds.

  Args:
    source: the template.
    messages: the conversation, of dicts, lists and texts.
    prompt: whether the text ends where the next answer begins.
    marks_learned: whether spans of `{% generation %}` are wanted.
    tokens: the special tokens of the tokenizer, by name.

  Returns:
    The text, and start and stop of each span in it that `{% generation %}` encloses.

  Raises:
    TemplateLimitError: the template does more than any published one.
    Exception: the template, which is a program, may raise anything.
  """
  template = _compile(source)
  environment = template.environment
  _RENDERING.meter = Meter(len(messages))
  blocks: list[str] = []
  spans: Spans = []
  tracking: Any = contextlib.nullcontext()
  if marks_learned:
    tracking = environment.activate_tracker(blocks, spans)
  variables = {"tools": None, "documents": None, **tokens}
  with tracking:
    for block in template.generate(
      messages=[*messages], add_generation_prompt=prompt, **variables
    ):
      environment.meter.add(len(block))
      blocks.append(block)
  return "".join(blocks), spans
