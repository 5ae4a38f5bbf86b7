"""What is to be measured on an accelerator, in calls of a few minutes each.

For a machine with a GPU (one H200, say) and no network, that is lent for half an hour:

    python -m benchmarks.accelerator pack --into=parts          # here
    python3 parts/accelerator_pack.py parts /tmp/store          # there
    python -m benchmarks.accelerator kernels --out=figures.jsonl --limit=540
    python -m benchmarks.accelerator scoring --out=figures.jsonl --sizes=1b,7b
    python -m benchmarks.accelerator training --out=figures.jsonl --sizes=1b,3b,7b
    python -m benchmarks.accelerator headline --out=figures.jsonl --parallel=4
    python -m benchmarks.accelerator report --out=figures.jsonl

- kernels: attention of the decoder and of towers by the platform's fast kernel, by
  plain XLA and in blocks, forward and backward, in float32 and bfloat16: errors
  against float32 over all pairs, times, memory.
- scoring: ours, alone and with shared images, and torch's B0 to B4, by the same weights
  on the same rows: speeds, MFU, memory, losses.
- training: steps of full and LoRA tuning, ours and torch's: speeds, model and executed
  FLOPs, MFU, memory.
- headline: `compare` of benchmarks/headline.py, a pool a seed.
- report: the file's figures as tables in Markdown.

Each call ends before `--limit` seconds have passed, with exit status 75 if it is to be
repeated, and else with 0, or 1 if cases failed. `--again` runs those that failed once
more. `--sizes=tiny` tries everything on CPUs.
benchmarks/accelerator_ledger.py says how cases are run and kept.
"""

import argparse
import fnmatch
import importlib
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import accelerator_ledger

MEASURED = ("kernels", "scoring", "training", "headline")


def read_arguments(words: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  commands = parser.add_subparsers(dest="command", required=True)
  for name in MEASURED:
    command = commands.add_parser(name)
    command.add_argument("--out", type=Path, required=True, help="JSON lines")
    command.add_argument("--limit", type=float, default=540, help="seconds of the call")
    command.add_argument("--sizes", default="1b,7b", help="tiny, small, 1b, 3b, 7b")
    command.add_argument("--only", default="*", help="pattern of cases' names")
    command.add_argument("--work", type=Path, help="kept between calls")
    command.add_argument("--parallel", type=int, default=1, help="cases at once")
    command.add_argument("--again", action="store_true", help="what failed, too")
    command.add_argument("--list", action="store_true", help="show cases, run nothing")
    command.add_argument("--seeds", default="41:51", help="of the headline: first:end")
    command.add_argument("--epochs", type=int, default=3, help="of the headline")
    command.add_argument("--config", default="benchmarks/headline.py")
  report = commands.add_parser("report")
  report.add_argument("--out", type=Path, required=True)
  pack = commands.add_parser("pack")
  pack.add_argument("--into", type=Path, required=True, help="a folder for the parts")
  pack.add_argument("--megabytes", type=float, default=40, help="of a part; at most 60")
  pack.add_argument("--there", type=Path, help="`pip freeze` of the other machine")
  pack.add_argument("--python", default="3.12", help="the other machine's")
  pack.add_argument("--wheels", type=Path, help="a folder of wheels, instead of pip's")
  unpack = commands.add_parser("unpack", aliases=["install"])
  unpack.add_argument("--parts", type=Path, required=True, help="what was carried")
  unpack.add_argument("--store", type=Path, required=True, help="kept between calls")
  case = commands.add_parser("case")
  case.add_argument("case", help="[key, settings] as JSON")
  case.add_argument("result", type=Path)
  case.add_argument("work", type=Path)
  return parser.parse_args(words)


def run_case(arguments: argparse.Namespace) -> int:
  """One case, in this process; its figures go to the file."""
  key, settings = json.loads(arguments.case)
  made = _module(key.split("/")[0]).measure(key, settings, arguments.work)
  if isinstance(made, int):
    return made  # the exit status of what was stopped
  lines = [{"figure": name, "value": value} for name, value in made.items()]
  lines.append({"machine": describe_machine()})
  arguments.result.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return 0


def describe_machine() -> dict[str, object]:
  """The device and what drives it; only of libraries that the case has used."""
  import os

  about: dict[str, object] = {"cores": os.cpu_count()}
  if jax := sys.modules.get("jax"):
    device = jax.devices()[0]
    about |= {"device": device.device_kind, "devices": jax.device_count()}
    about["jax"] = jax.__version__
  if torch := sys.modules.get("torch"):
    about["torch"] = torch.__version__
  return about


def _module(command: str):
  return importlib.import_module(f"benchmarks.accelerator_{command}")


def measure(arguments: argparse.Namespace) -> int:
  cases = _module(arguments.command).list_cases(arguments)
  cases = [case for case in cases if fnmatch.fnmatch(case.key, arguments.only)]
  if not cases:
    print(f"no case matches --only={arguments.only!r}; --list shows them")
    return 2
  arguments.out.parent.mkdir(parents=True, exist_ok=True)
  ledger = accelerator_ledger.Ledger(arguments.out)
  if arguments.list:
    for case in cases:
      print(f"{case.key:45} {case.seconds:5.0f} s  {ledger.state(case.key)}")
    return 0
  if not {"tiny", "small"} & {*arguments.sizes.split(",")}:
    if accelerator_ledger.find_platform() == "cpu":
      print(
        "jax sees no accelerator here, on which alone these sizes end; install its"
        " plug-in, or give --sizes=tiny or small"
      )
      return 2
  work = arguments.work or Path(tempfile.gettempdir()) / "accelerator-work"
  return accelerator_ledger.run(
    cases, ledger, arguments.limit, work.absolute(), arguments.parallel, arguments.again
  )


def main(words: list[str] | None = None) -> int:
  arguments = read_arguments(sys.argv[1:] if words is None else words)
  if arguments.command == "case":
    return run_case(arguments)
  if arguments.command in MEASURED:
    return measure(arguments)
  if arguments.command == "report":
    from benchmarks import accelerator_report

    print(accelerator_report.format_report(arguments.out))
    return 0
  from benchmarks import accelerator_pack

  if arguments.command == "pack":
    return accelerator_pack.pack(arguments)
  return accelerator_pack.unpack(arguments.parts, arguments.store)


if __name__ == "__main__":
  sys.exit(main())
