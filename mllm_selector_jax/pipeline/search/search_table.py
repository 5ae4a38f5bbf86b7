"""Shows the trials of a search as a table."""

from typing import Any


def describe(settings: dict[str, Any], first: dict[str, Any]) -> str:
  """Describe how a candidate differs from the first one, the config's settings."""
  if settings == first:
    return "the config's own settings"
  if settings.get("strategy") != first.get("strategy"):
    return f"strategy {settings['strategy']}"
  words = [
    f"{name} {value}" for name, value in settings.items() if value != first[name]
  ]
  return ", ".join(words)


def list_lines(result: dict[str, Any]) -> list[list[str]]:
  """Return the trials as rows of a table, under a header.

  Trials with more steps come first, and among these the more accurate ones.
  """
  first = result["candidates"][0]
  lines = [["candidate", "settings", "steps", "rows", "FLOPs", "score", "outcome"]]
  last_steps = max(line["steps"] for line in result["trials"])
  for line in sorted(result["trials"], key=_order):
    won = "won" if line["steps"] == last_steps else "went on"
    lines.append(
      [
        str(line["candidate"]),
        describe(result["candidates"][line["candidate"]], first),
        f"{line['steps']:,}",
        f"{line['rows']:,}",
        f"{line['flops']:.2e}"
        if "flops" in line
        else "-",  # older versions did not count them
        f"{line['value']:.4f}",
        won if line["goes_on"] else "dropped",
      ]
    )
  return lines


def _order(line: dict[str, Any]) -> tuple:
  return -line["steps"], -line["value"], line["candidate"]


def format_table(result: dict[str, Any]) -> str:
  """Return the trials as a table in Markdown."""
  lines = list_lines(result)
  text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
  return text.replace("\n", "\n" + "|---" * len(lines[0]) + "|\n", 1)
