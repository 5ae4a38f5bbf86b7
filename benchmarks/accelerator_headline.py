"""The headline on drawn pools, a case a seed: the command `headline`.

A case is `mllm-selector compare` of benchmarks/headline.py, or of another config, on
the pool of one seed, in a workdir of its own. It is stopped by SIGTERM before the
call's time is over, and goes on from its workdir in the next one. Several seeds may run
at once (`--parallel`), since a model of a million parameters leaves most of an
accelerator idle. If the machine and with it the workdirs are gone, finished seeds are
in the figures, and only those that were not finished begin anew.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.accelerator_ledger import ROOT, Case

# Settings of the trial on CPUs; the pool has 11 tasks and 60 rows at least.
TINY = {
  "pool.demo.rows": 120,
  "pool.demo.questions": 2,
  "compare.budgets": "20%",
  "tune.epochs": 1,
}


def list_cases(arguments: Any) -> list[Case]:
  first, end = (int(number) for number in arguments.seeds.split(":"))
  changes: dict[str, Any] = {"tune.epochs": arguments.epochs}
  if arguments.sizes == "tiny":
    changes |= TINY
  settings = {"config": arguments.config, "changes": changes}
  return [
    Case(f"headline/{seed}", {**settings, "seed": seed}, 20.0, resumes=True)
    for seed in range(first, end)
  ]


def measure(key: str, settings: dict[str, Any], work: Path) -> dict[str, Any] | int:
  """What each arm reached, by its name; the exit status, if it was stopped."""
  workdir = work / key.replace("/", "-")
  changes = {"compare.seeds": str(settings["seed"]), **settings["changes"]}
  command = [sys.executable, "-m", "mllm_selector_jax.main", "compare"]
  command += [f"--config={settings['config']}", f"--workdir={workdir}"]
  command += [f"--config.{name}={value}" for name, value in changes.items()]
  process = subprocess.Popen(command, cwd=ROOT, env=os.environ)
  signal.signal(signal.SIGTERM, lambda *_: process.terminate())
  status = process.wait()
  if status:
    return status
  results = json.loads((workdir / "compare" / "results.json").read_text())
  return {arm["arm"]: arm for arm in results["arms"]} | {"plan": results["plan"]}
