"""The flags of the commands, as the help and the completion name them."""

from typing import NamedTuple

from mllm_selector_jax.stages import COMMANDS


class Flag(NamedTuple):
  """A flag: what stands behind its `=` ("" for none), and what it says."""

  value: str
  meaning: str


# The flags of every command that reads a config.
COMMON = {
  "config": Flag("FILE", "A config file, or the bare name of a shipped one."),
  "workdir": Flag("DIR", "The folder, or bucket, in which everything is written."),
  "force": Flag("", "Accept a pool whose files have changed, and check it again."),
  "print_config": Flag(
    "",
    "Print the config with all changes, and do nothing. A * marks what differs from"
    " the default; --workdir is not needed.",
  ),
  "coordinator": Flag(
    "HOST:PORT",
    "This is one of several processes of one run, whose first process listens there."
    " auto: a TPU slice, SLURM or Kubernetes provides this value and the next two.",
  ),
  "num_processes": Flag("N", "How many processes the run has."),
  "process_id": Flag("I", "Which of them this is, counted from 0."),
  "num_devices": Flag("N", "Fail unless all processes together have N devices."),
}
# The flags that only some commands read.
SPECIAL = {
  "id": Flag("ID[,ID]", "The rows to explain: ids, or row=N."),
  "arm": Flag(
    "NAME",
    "The arm that is meant; main if not given. Of clean: arms, separated by commas.",
  ),
  "ids": Flag("FILE[,FILE]", "The files of ids, or of records, to measure."),
  "out": Flag("FILE", "The JSON file to which the figures are written."),
}
CARD = {"card": Flag("DIR", "The folder of a card that export-selection wrote.")}
PUSH = {
  "folder": Flag(
    "DIR", "A card that export-selection wrote, a tuned model or adapter."
  ),
  "repo": Flag("OWNER/NAME", "The repository, which is made if there is none."),
  "public": Flag("", "A new repository can be read by everybody; otherwise by you."),
}
# Commands that read no config, and what they do.
OTHERS = {
  "assemble": "Makes a base model from a decoder, a vision tower and a projector.",
  "verify": "Makes the published selection of --card=DIR again, and compares.",
  "push": "Uploads a card or a model to a hub of Hugging Face.",
  "completion": "Prints the completion of commands, flags and keys for bash or zsh.",
}


def list_flags(command: str) -> dict[str, Flag]:
  """Returns the flags of a command other than `assemble`."""
  if command not in COMMANDS:
    return {"verify": CARD, "push": PUSH}.get(command, {})
  return {name: SPECIAL[name] for name in COMMANDS[command].flags} | COMMON
