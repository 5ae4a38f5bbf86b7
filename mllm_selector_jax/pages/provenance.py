"""Lists what each artifact was made from, as a table and as full JSON."""

import json
from typing import Any

from mllm_selector_jax.pages.gather import Run
from mllm_selector_jax.pages.samples import cut

MOST_JSON = 40_000  # characters of one artifact's provenance
MOST_JSONS = 1_600_000  # characters of all together
DASH = "\u2013"  # stands for a missing value


def list_origins(run: Run) -> list[dict[str, Any]]:
  """Return a line for each artifact: the command that made it, and its inputs."""
  return [
    {
      "name": name,
      "stage": str(account.get("stage", DASH)),
      "seed": str(account.get("seed", DASH)),
      "digest": str(account.get("digest", DASH))[:12],
      "inputs": ", ".join(
        f"{key} {str(value)[:12]}"
        for key, value in sorted((account.get("inputs") or {}).items())
      ),
    }
    for name, account in run.provenance.items()
  ]


def list_packages(run: Run) -> list[tuple[str, str]]:
  """Return package versions; all of them if artifacts were made with several."""
  versions: dict[str, set[str]] = {}
  for account in run.provenance.values():
    for name, version in (account.get("packages") or {}).items():
      versions.setdefault(name, set()).add(str(version))
  return [(name, " and ".join(sorted(versions[name]))) for name in sorted(versions)]


def list_accounts(run: Run) -> list[tuple[str, str]]:
  """Return provenance and summaries as JSON text, truncated if they are too long."""
  documents = [*run.provenance.items(), ("pool_summary.json", run.pool.summary)]
  for arm in run.arms:
    if arm.selection is not None:
      summary = {k: v for k, v in arm.selection.summary.items() if k != "groups"}
      documents.append(
        (f"arms/{arm.folder or arm.name}/selection/summary.json", summary)
      )
  limit = min(MOST_JSON, MOST_JSONS // max(len(documents), 1))
  return [(name, _indented(value, limit)) for name, value in documents if value]


def _indented(value: Any, limit: int) -> str:
  text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
  return cut(text, limit)
