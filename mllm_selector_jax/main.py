"""The command line: `mllm-selector [command] --config=FILE --workdir=DIR`.

And `mllm-selector assemble --decoder=DIR --vision=DIR --out=DIR`, and
`mllm-selector verify --card=DIR`.
"""

import sys

from mllm_selector_jax.runs.standard_output import write_result
from mllm_selector_jax.stages import COMMANDS

USAGE = """\
mllm-selector [command] --config=FILE --workdir=DIR [--config.section.key=value ...]

  --config   a config file, or the bare name of a shipped one: {configs}
  --workdir  where everything is written
  --force    take a pool whose files changed, and check it again
  --id       rows that explain is asked about, separated by commas: ids, or row=N
  --arm      whose selection explain or export-selection is about: main unless given
  --ids      files of ids, or of records, that measure is asked about, separated by
             commas
  --out      a JSON file that measure writes its figures to

  --coordinator=HOST:PORT --num_processes=N --process_id=I
             one of N processes that make one run: the same command line for all,
             but for I, which counts from 0; the first listens at HOST:PORT
  --coordinator=auto
             the same where a TPU slice, SLURM or Kubernetes tells all three
  --num_devices=N
             fail unless all processes together have N devices

Commands (none means run):
{commands}

Exit status: 0 done, 1 failed, 2 wrong input or configuration, 130 interrupted,
143 stopped by SIGTERM. The same command goes on from what is whole."""


def main(argv: list[str] | None = None) -> None:
  """Runs one command and leaves with its exit status."""
  argv = sys.argv if argv is None else argv
  if _asks_help(argv):
    write_result(_describe(argv[1]))
    return
  from mllm_selector_jax.runs import processes

  processes.leave(run(argv))


def run(argv: list[str]) -> int:
  """The exit status of a command line: 0, 1, 2, 130 or 143."""
  if _asks_help(argv):
    write_result(_describe(argv[1]))
    return 0
  # The help is there before jax is imported, which takes a second.
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
    "  assemble  Makes a base from a decoder, a vision tower and a projector."
  )
  lines.append(
    "  verify    Draws the published selection of --card=DIR again, compares."
  )
  from mllm_selector_jax.command_line import list_shipped

  shipped = ", ".join(list_shipped())
  return USAGE.format(commands="\n".join(lines), configs=shipped)


if __name__ == "__main__":
  main()
