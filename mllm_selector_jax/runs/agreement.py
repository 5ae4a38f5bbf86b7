"""What the processes of a run must agree on, compared before they go on together.

Processes with different settings run different programs, or different numbers of them,
and then wait for each other for good.
"""

import json
from collections.abc import Mapping
from typing import Any

from mllm_selector_jax.runs import artifacts, peers
from mllm_selector_jax.types import InputError

MOST = 5  # differences that the message names
_LONGEST = 200  # characters of a value that are shown

_OWN_THREADS = "how many cores of its own machine a process uses; no result follows"
# Keys whose values may differ between the processes of a run, and why.
MAY_DIFFER = {
  "align.threads": _OWN_THREADS,
  "seed.threads": _OWN_THREADS,
  "score.threads": _OWN_THREADS,
  "tune.threads": _OWN_THREADS,
  "prepare.workers": _OWN_THREADS,
  "log.tensorboard": "only the first process writes event files",
}
# Settings of jax, often given by the environment, that change programs or numbers.
_JAX = (
  "jax_enable_x64",
  "jax_default_matmul_precision",
  "jax_default_prng_impl",
  "jax_threefry_partitionable",
)


def describe(call: Mapping[str, Any], cfg: Any) -> dict[str, str]:
  """Everything that all processes must have alike, by the name it is given by.

  Args:
    call: the command and the values of the flags.
    cfg: the config.
  """
  described = {name: repr(value) for name, value in call.items()}
  for key, value in artifacts.flatten(cfg.to_dict()).items():
    if key not in MAY_DIFFER:
      described[f"config.{key}"] = repr(value)
  for name, version in artifacts.package_versions().items():
    described[f"the version of {name}"] = version
  import jax

  for name in _JAX:
    described[name] = repr(getattr(jax.config, name))
  return described


def compare(described: Mapping[str, str], what: str = "settings") -> None:
  """Ends every process if the processes do not describe the same; all must ask.

  Args:
    described: names and values of this process.
    what: they are, for the message.

  Raises:
    InputError: they differ, the same message in every process.
  """
  if peers.place()[1] == 1:
    return
  digests = peers.exchange(artifacts.hash_json(dict(described)))
  if len(set(digests)) == 1:
    return
  everyone = [json.loads(text) for text in peers.exchange(json.dumps(dict(described)))]
  raise InputError(explain(everyone, what))


def explain(everyone: list[dict[str, str]], what: str) -> str:
  """The message that names what differs, given what each process describes."""
  names = dict.fromkeys(name for one in everyone for name in one)
  lines = []
  for name in names:
    holders: dict[str, list[int]] = {}
    for number, one in enumerate(everyone):
      holders.setdefault(one.get(name, "not there"), []).append(number)
    if len(holders) > 1:
      values = [
        f"{_clip(value)} in {_join(numbers)}" for value, numbers in holders.items()
      ]
      lines.append(f"  {name} is {' and '.join(values)}")
  if len(lines) > MOST:
    lines[MOST:] = [f"  and {len(lines) - MOST} more"]
  return "\n".join(
    [
      f"The {len(everyone)} processes of this run have different {what}:",
      *lines,
      "Start all of them with the same command line and the same files; only"
      f" --process_id and {', '.join(MAY_DIFFER)} may differ.",
    ]
  )


def _join(numbers: list[int]) -> str:
  """Processes by their numbers, runs of them as one."""
  runs: list[list[int]] = []
  for number in numbers:
    if runs and number == runs[-1][-1] + 1:
      runs[-1].append(number)
    else:
      runs.append([number])
  named = [
    f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run))
    for run in runs
  ]
  return f"process{'es' if len(numbers) > 1 else ''} {', '.join(named)}"


def _clip(text: str) -> str:
  return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."
