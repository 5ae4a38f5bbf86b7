"""Checks that the processes of a run have the same settings, before they continue.

Processes with different settings would run different programs, or a different number of
them, and would then wait for each other forever.
"""

import json
from collections.abc import Mapping
from typing import Any

from mllm_selector_jax.runs import artifacts, own_code, peers
from mllm_selector_jax.types import InputError

MOST = 5  # largest number of differences that the message names
_LONGEST = 200  # largest number of characters of a value that are shown

_OWN_THREADS = (
  "the cores of its own machine that a process uses; no result depends on it"
)
# Keys whose values may differ between the processes of a run, and why.
MAY_DIFFER = {
  "align.threads": _OWN_THREADS,
  "seed.threads": _OWN_THREADS,
  "score.threads": _OWN_THREADS,
  "tune.threads": _OWN_THREADS,
  "prepare.workers": _OWN_THREADS,
  "log.trackers": "only the first process has trackers",
}
# Settings of jax that change programs or numbers, and are often set by the environment.
_JAX = (
  "jax_enable_x64",
  "jax_default_matmul_precision",
  "jax_default_prng_impl",
  "jax_threefry_partitionable",
)


def describe(call: Mapping[str, Any], cfg: Any) -> dict[str, str]:
  """Describes everything that must be the same in all processes.

  Args:
    call: the command and the values of the flags, by name.
    cfg: the config.

  Returns:
    The values as text, by the names that users know them by.
  """
  described = {name: repr(value) for name, value in call.items()}
  for key, value in artifacts.flatten(cfg.to_dict()).items():
    if key not in MAY_DIFFER:
      described[f"config.{key}"] = repr(value)
  for name, version in artifacts.package_versions().items():
    described[f"the version of {name}"] = version
  described["the hash of mllm_selector_jax's code"] = own_code.hash_code()[:16]
  import jax

  for name in _JAX:
    described[name] = repr(getattr(jax.config, name))
  return described


def compare(described: Mapping[str, str], what: str = "settings") -> None:
  """Compares values among all processes. All processes must call this.

  Args:
    described: the values of this process, by name.
    what: what the values are, for the message.

  Raises:
    InputError: the values differ. The message is the same in every process.
  """
  if peers.number_and_count()[1] == 1:
    return
  digests = peers.exchange(artifacts.hash_json(dict(described)))
  if len(set(digests)) == 1:
    return
  by_process = [
    json.loads(text) for text in peers.exchange(json.dumps(dict(described)))
  ]
  raise InputError(explain(by_process, what))


def explain(by_process: list[dict[str, str]], what: str) -> str:
  """Writes the message that names the differences.

  Args:
    by_process: the values of each process, by name.
    what: what the values are.
  """
  names = dict.fromkeys(name for values in by_process for name in values)
  lines = []
  for name in names:
    holders: dict[str, list[int]] = {}  # the processes that have each value
    for number, values in enumerate(by_process):
      holders.setdefault(values.get(name, "not there"), []).append(number)
    if len(holders) > 1:
      texts = [
        f"{_clip(value)} in {_join(numbers)}" for value, numbers in holders.items()
      ]
      lines.append(f"  {name} is {' and '.join(texts)}")
  if len(lines) > MOST:
    lines[MOST:] = [f"  and {len(lines) - MOST} more"]
  return "\n".join(
    [
      f"The {len(by_process)} processes of this run have different {what}:",
      *lines,
      "Start all of them with the same command line and the same files; only"
      f" --process_id and {', '.join(MAY_DIFFER)} may differ.",
    ]
  )


def _join(numbers: list[int]) -> str:
  """Lists processes by their numbers; consecutive ones are written as a range."""
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
