"""Our metrics beside lmms-eval's own functions, on generated cases.

    pip install --no-deps 'lmms-eval>=0.7' evaluate loguru sacrebleu portalocker \
      tabulate lxml colorama pytz
    python -m benchmarks.lmms_eval_metrics --cases=5000
    python -m benchmarks.lmms_eval_metrics --lmms_eval=DIR    # a checkout of it

Each task's module is imported by its path, so that lmms-eval's heavy dependencies are
not needed. Cases are drawn from words, numbers and marks that the rules speak of,
answers near the predictions. A case in which we differ on purpose is told by its reason
and counted; any other difference is shown, and the exit status is 1.
"""

import argparse
import collections
import importlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.lmms_eval_cases import (
  Case,
  Theirs,
  ai2d_cases,
  anls_cases,
  chartqa_cases,
  match_cases,
  mmbench_cases,
  scienceqa_cases,
  textvqa_cases,
  vqa_cases,
)
from benchmarks.lmms_eval_totals import mmbench_totals, mme_totals, pope_totals

COMPARED: dict[str, Callable[[Theirs, random.Random], Iterator[Case]]] = {
  "vqa (VQAv2)": vqa_cases,
  "textvqa (TextVQA)": textvqa_cases("textvqa"),
  "textvqa (VizWiz)": textvqa_cases("vizwiz_vqa"),
  "gqa": match_cases("gqa", ignore_case=True, ignore_punctuation=True),
  "exact_match": match_cases("exact_match", ignore_case=True),
  "chartqa": chartqa_cases,
  "anls (DocVQA)": anls_cases,
  "multiple_choice (ScienceQA)": scienceqa_cases,
  "ai2d": ai2d_cases,
  "mmbench": mmbench_cases,
  "mmbench, circular over 8 questions": mmbench_totals,
  "yes_no (POPE), totals": pope_totals,
  "mme, totals": mme_totals,
}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--lmms_eval", help="a checkout; none takes what is installed")
  parser.add_argument("--cases", type=int, default=5000, help="a metric")
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args()
  theirs = Theirs(arguments.lmms_eval)
  print(
    f"{theirs.version}, {arguments.cases:,} cases a metric, seed {arguments.seed}\n"
  )
  print("| metric | equal | right or above 0 | differ on purpose | differ |")
  print("|---|---|---|---|---|")
  importlib.import_module("loguru").logger.disable("lmms_eval")
  failures, reasons = [], collections.Counter()
  for name, cases in COMPARED.items():
    count = arguments.cases if "," not in name else max(1, arguments.cases // 20)
    counts = collections.Counter()
    stream = cases(theirs, random.Random(f"{arguments.seed} {name}"))
    for _ in range(count):
      case = next(stream)
      counts["above"] += bool(case.ours) and case.ours != (0, 0)
      if case.ours == case.theirs or _near(case.ours, case.theirs):
        counts["equal"] += 1
      elif case.reason:
        counts["purpose"] += 1
        reasons[f"{name}: {case.reason}"] += 1
      else:
        counts["differ"] += 1
        failures.append((name, case))
    print(
      f"| {name} | {counts['equal']:,} of {count:,} | {counts['above']:,} |"
      f" {counts['purpose']:,} | {counts['differ']:,} |",
      flush=True,
    )
  print("\nOn purpose:")
  for reason, count in reasons.items():
    print(f"- {reason} ({count:,})")
  print("- POPE's yes ratio is of the predictions, as POPE's is; there of the answers")
  for name, case in failures[:20]:
    print(f"DIFFERS {name}: ours {case.ours}, theirs {case.theirs}: {case.shown!r}")
  sys.exit(bool(failures))


def _near(ours: Any, theirs: Any) -> bool:
  both = isinstance(ours, float) and isinstance(theirs, int | float)
  return both and abs(ours - theirs) < 1e-12


if __name__ == "__main__":
  main()
