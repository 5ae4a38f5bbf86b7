"""The logs of `benchmarks.kills`, a line for each hit, and what they come to."""

import collections
import pathlib
import re

LOGS = pathlib.Path(__file__).parents[1] / "docs/logs/kills"


def find_log(name: str) -> pathlib.Path:
  return LOGS / f"{re.sub('[^a-z0-9]+', '_', name).strip('_')}.txt"


def count(log: pathlib.Path) -> collections.Counter:
  """What a log holds: hits by signal, ended runs, faults, and hits of two processes."""
  text = log.read_text() if log.exists() else ""
  counts = collections.Counter(re.findall(r"^hit: (\w+)", text, re.MULTILINE))
  counts["two"] = len(re.findall(r"^hit: .* of 2,", text, re.MULTILINE))
  counts["ended"] = len(re.findall("^ended: the same", text, re.MULTILINE))
  counts["faults"] = text.count("FAULT")
  return counts


def format_table(names: list[str]) -> str:
  """The table of docs/results/reliability.md, from the logs."""
  columns = ("SIGKILL", "SIGTERM", "SIGINT", "two", "ended", "faults")
  titles = (*columns[:3], "of two processes", "runs ended, the same bytes", "faults")
  lines = [f"| stage | {' | '.join(titles)} |", "|---|" + "---|" * len(columns)]
  total: collections.Counter = collections.Counter()
  for name in names:
    counts = count(find_log(name))
    total.update(counts)
    lines.append(f"| {name} | " + " | ".join(str(counts[c]) for c in columns) + " |")
  lines.append("| all | " + " | ".join(str(total[c]) for c in columns) + " |")
  return "\n".join(lines)
