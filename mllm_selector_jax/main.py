"""The entry point `mllm-selector [command] --config=FILE --workdir=DIR`.

These commands have no config: `mllm-selector assemble --decoder=DIR --vision=DIR
--out=DIR`, `mllm-selector verify --card=DIR`, `mllm-selector push --folder=DIR
--repo=NAME` and `mllm-selector completion bash`.
"""

import sys

import mllm_selector_jax
from mllm_selector_jax.runs.standard_output import write_result


def main(argv: list[str] | None = None) -> None:
  """Runs one command, and exits with its status."""
  argv = sys.argv if argv is None else argv
  if (text := _answer(argv)) is not None:
    write_result(text)
    return
  # Imported here, so that the help does not wait for these imports.
  from mllm_selector_jax import invocation
  from mllm_selector_jax.runs import processes

  processes.leave(invocation.run(argv, own_process=True))


def run(argv: list[str]) -> int:
  """Runs a command line, and returns its exit status: 0, 1, 2, 130 or 143.

  Unlike `main`, this does not exit.
  """
  if (text := _answer(argv)) is not None:
    write_result(text)
    return 0
  from mllm_selector_jax import invocation

  return invocation.run(argv)


def _answer(argv: list[str]) -> str | None:
  """Returns what a command line asks about the command line itself, or None."""
  given = argv[1:]
  commands = [argument for argument in given if not argument.startswith("-")]
  if {"--help", "-help", "-h", "help"} & set(given):
    from mllm_selector_jax.usage import help_text

    asked = [command for command in commands if command != "help"]
    return help_text.write_help(asked[0] if asked else "")
  if "--version" in given:
    return f"mllm-selector {mllm_selector_jax.__version__}"
  if commands[:1] == ["completion"] and commands[1:] in (["bash"], ["zsh"]):
    from mllm_selector_jax.usage import completion

    return completion.write_script(commands[1])
  return None


if __name__ == "__main__":
  main()
