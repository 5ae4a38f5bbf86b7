"""What each artifact was made from: a table of them, and their own accounts."""

import json
from typing import Any

from mllm_selector_jax.pages.gather import Run
from mllm_selector_jax.pages.samples import cut

MOST_JSON = 40_000  # characters of one artifact's provenance
MOST_JSONS = 1_600_000  # of all together
DASH = "\u2013"  # where there is no value


def list_origins(run: Run) -> list[dict[str, Any]]:
  """Which command made each artifact, and from what; a line each."""
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
  """Package versions, with all of them where artifacts differ in one."""
  found: dict[str, set[str]] = {}
  for account in run.provenance.values():
    for name, version in (account.get("packages") or {}).items():
      found.setdefault(name, set()).add(str(version))
  return [(name, " and ".join(sorted(found[name]))) for name in sorted(found)]


def list_accounts(run: Run) -> list[tuple[str, str]]:
  """Provenance and summaries as text, cut where there is too much of it."""
  found = [*run.provenance.items(), ("pool_summary.json", run.pool.summary)]
  for arm in run.arms:
    if arm.selection is not None:
      summary = {k: v for k, v in arm.selection.summary.items() if k != "groups"}
      found.append((f"arms/{arm.name}/selection/summary.json", summary))
  most = min(MOST_JSON, MOST_JSONS // max(len(found), 1))
  return [(name, _indented(value, most)) for name, value in found if value]


def _indented(value: Any, most: int) -> str:
  text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
  return cut(text, most)
