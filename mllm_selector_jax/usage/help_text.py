"""The help: of the whole command line, and of each command with its config keys."""

import textwrap
from collections.abc import Iterable, Mapping

from mllm_selector_jax.stages import COMMANDS
from mllm_selector_jax.usage.config_keys import ConfigKey, list_shipped, read_keys
from mllm_selector_jax.usage.flag_table import COMMON, OTHERS, Flag, list_flags

WIDTH = 88
_INDENT = " " * 6

_OTHER_LINES = {
  "verify": "mllm-selector verify --card=DIR",
  "push": "mllm-selector push --folder=DIR --repo=OWNER/NAME [--public]",
}
_CONFIGURED = "--config=FILE --workdir=DIR [--config.section.key=value ...]"
_OVERVIEW = """\
mllm-selector [command] {configured}
mllm-selector COMMAND --help      the flags of a command, and the config keys it reads
mllm-selector --version

Commands (run if none is given):
{commands}

Flags:
{flags}

Shipped configs: {configs}.

Exit status: 0 done, 1 failed, 2 wrong input or configuration, 130 interrupted,
143 stopped by SIGTERM. The same command resumes from what is complete."""


def write_overview() -> str:
  """Writes the help of the whole command line."""
  summaries = {name: command.summary for name, command in COMMANDS.items()} | OTHERS
  width = max(map(len, summaries))
  commands = [f"  {name:{width}}  {text}" for name, text in summaries.items()]
  return _OVERVIEW.format(
    configured=_CONFIGURED,
    commands="\n".join(commands),
    flags=_format_flags(COMMON),
    configs=", ".join(list_shipped()),
  )


def write_help(command: str) -> str:
  """Writes the help of one command; of the whole command line if there is none such."""
  if command == "assemble":
    from absl import flags

    from mllm_selector_jax.stages import assemble  # defines its flags

    return str(assemble.__doc__) + flags.FLAGS.module_help(assemble)
  if command in _OTHER_LINES:
    return _join(_OTHER_LINES[command], OTHERS[command], _flags_part(command))
  if command == "completion":
    return _join(
      "mllm-selector completion bash|zsh",
      OTHERS[command],
      'For bash: eval "$(mllm-selector completion bash)" in ~/.bashrc.\n'
      "For zsh: the output as _mllm-selector in a folder of $fpath, or\n"
      'eval "$(mllm-selector completion zsh)" in ~/.zshrc after compinit.',
    )
  if command not in COMMANDS:
    return write_overview()
  about = COMMANDS[command]
  return _join(
    f"mllm-selector {command} {_CONFIGURED}",
    about.summary,
    _flags_part(command),
    _keys_part(select_keys(about.keys)),
    textwrap.fill(f"Note: {about.note}", WIDTH) if about.note else "",
  )


def select_keys(names: Iterable[str]) -> dict[str, ConfigKey]:
  """Returns the keys of some names; a section stands for all of its keys."""
  names = set(names)
  return {
    key: value
    for key, value in read_keys().items()
    if names & {key, *_list_sections(key)}
  }


def _list_sections(key: str) -> list[str]:
  parts = key.split(".")
  return [".".join(parts[:count]) for count in range(1, len(parts))]


def _flags_part(command: str) -> str:
  return f"Flags:\n{_format_flags(list_flags(command))}"


def _format_flags(flags: Mapping[str, Flag]) -> str:
  lines = []
  for name, flag in flags.items():
    lines.append(f"  --{name}={flag.value}" if flag.value else f"  --{name}")
    lines.append(_wrap(flag.meaning))
  return "\n".join(lines)


def _keys_part(keys: Mapping[str, ConfigKey]) -> str:
  """Formats keys with their default values, with an empty line between sections."""
  lines = [
    "Config keys that it reads, with the defaults of configs/default.py. Some of them"
    "\nmatter only together with others; default.py says all about each."
  ]
  section = None
  for name, key in keys.items():
    if section != (section := name.partition(".")[0]):
      lines.append("")
    lines.append(f"  --config.{name}={key.default}")
    lines.append(_wrap(key.sentence))
  return "\n".join(lines)


def _wrap(text: str) -> str:
  return textwrap.fill(
    text,
    WIDTH,
    initial_indent=_INDENT,
    subsequent_indent=_INDENT,
    break_long_words=False,
    break_on_hyphens=False,
  )


def _join(*parts: str) -> str:
  return "\n\n".join(part for part in parts if part)
