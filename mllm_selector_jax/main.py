"""The entry point `mllm-selector [command] --config=FILE --workdir=DIR`.

Two commands have other flags: `mllm-selector assemble --decoder=DIR --vision=DIR
--out=DIR` and `mllm-selector verify --card=DIR`.
"""

import sys

from mllm_selector_jax.runs.standard_output import write_result
from mllm_selector_jax.stages import COMMANDS

USAGE = """\
mllm-selector [command] --config=FILE --workdir=DIR [--config.section.key=value ...]

  --config   a config file, or the bare name of a shipped one: {configs}
  --workdir  the folder in which everything is written
  --force    accept a pool whose files have changed, and check it again
  --id       the rows to explain, separated by commas: ids, or row=N
  --arm      the arm to explain, export, tune or evaluate; main if not given. The arms
             to clean, separated by commas
  --ids      the files of ids, or of records, to measure, separated by commas
  --out      the JSON file to which measure writes its figures

  --coordinator=HOST:PORT --num_processes=N --process_id=I
             one of N processes of the same run. All have the same command line,
             except for I, which is counted from 0. The first listens at HOST:PORT
  --coordinator=auto
             the same if a TPU slice, SLURM or Kubernetes provides all three values
  --num_devices=N
             fail unless all processes together have N devices

Commands (run if none is given):
{commands}

Exit status: 0 done, 1 failed, 2 wrong input or configuration, 130 interrupted,
143 stopped by SIGTERM. The same command resumes from what is complete."""


def main(argv: list[str] | None = None) -> None:
  """Runs one command, and exits with its status."""
  argv = sys.argv if argv is None else argv
  if _asks_help(argv):
    write_result(_describe(argv[1]))
    return
  # Imported here, so that the help does not wait for these imports.
  from mllm_selector_jax import invocation
  from mllm_selector_jax.runs import processes

  processes.leave(invocation.run(argv, own_process=True))


def run(argv: list[str]) -> int:
  """Runs a command line, and returns its exit status: 0, 1, 2, 130 or 143.

  Unlike `main`, this does not exit.
  """
  if _asks_help(argv):
    write_result(_describe(argv[1]))
    return 0
  from mllm_selector_jax import invocation

  return invocation.run(argv)


def _asks_help(argv: list[str]) -> bool:
  return bool({"--help", "-help", "-h", "help"} & set(argv[1:]))


def _describe(command: str) -> str:
  if command == "assemble":
    from absl import flags

    from mllm_selector_jax.stages import assemble

    return assemble.__doc__ + flags.FLAGS.module_help(assemble)
  lines = [f"  {name:9} {command.summary}" for name, command in COMMANDS.items()]
  lines.append(
    "  assemble  Makes a base model from a decoder, a vision tower and a projector."
  )
  lines.append(
    "  verify    Makes the published selection of --card=DIR again, and compares."
  )
  from mllm_selector_jax.command_line import list_shipped

  shipped = ", ".join(list_shipped())
  return USAGE.format(commands="\n".join(lines), configs=shipped)


if __name__ == "__main__":
  main()
