"""Reads mutated inputs of every kind, many more than the tests do.

    python -m benchmarks.fuzz [--cases 1000000] [--kinds image,pool] [--out FOLDER]

The kinds are those of `tests/fuzz/kinds.py`. One worker process reads the cases of a
kind one after the other, in rounds over all kinds. A case may take 10 seconds of
processor time, and the worker is killed when it gives no answer for two minutes. Its
memory is limited. A case whose message is new is changed further. With --lines=guide
(on Python 3.12) so is a case that is the first of its round to run a line of the
package, or of a library that reads files in Python; --lines=count only tells how many
lines the round with the most of them ran. A find is an exception that is no
`InputError`, a crash, a hang, or growth beyond the limit; the next case follows, and
the exit status is 1. FOLDER receives a log for each kind, the files of each find, and
the table so far.
"""

import argparse
import collections
import hashlib
import logging
import multiprocessing
import os
import pathlib
import resource
import sys
import tempfile
import time
import traceback
import warnings

SLOWEST = 10.0  # seconds of processor time of a case
SILENT = 120.0  # seconds without an answer, on a busy machine
GROWTH = 1 << 30  # bytes by which a case may make the worker larger
ROOM = 6 << 30  # bytes of address space beyond what the worker has when it starts
HEADER = "kind | cases | taken | aside | refused | finds | s of processor | lines"


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--cases", type=int, default=1_000_000)
  parser.add_argument("--kinds", default="", help="beginnings of names, with commas")
  parser.add_argument("--rounds", type=int, default=50, help="over all kinds")
  parser.add_argument("--first", type=int, default=0, help="the first round")
  parser.add_argument("--lines", choices=("count", "guide"), help="that are run")
  parser.add_argument("--out", default="fuzz", type=pathlib.Path)
  arguments = parser.parse_args()
  arguments.out.mkdir(parents=True, exist_ok=True)
  context = multiprocessing.get_context("spawn")
  wanted = tuple(filter(None, arguments.kinds.split(",")))
  worker = Worker(context, arguments)
  shares = {n: s for n, s in worker.shares.items() if n.startswith(wanted or "")}
  unit = arguments.cases / sum(shares.values()) / arguments.rounds
  total = {name: collections.Counter() for name in shares}
  for number in range(arguments.first, arguments.rounds):
    for name, share in shares.items():
      cases = max(1, round(share * unit))
      counts = worker.run_kind(name, number * cases, cases)
      lines = max(counts.pop("lines", 0), total[name]["lines"])  # of one round
      total[name].update(counts)
      total[name]["lines"] = lines
    table = write_table(total)
    (arguments.out / "table.txt").write_text(table)
    print(f"round {number}: {table.splitlines()[-1]}", flush=True)
  worker.stop()
  print(table)
  return int(any(counts["finds"] for counts in total.values()))


def write_table(total: dict[str, collections.Counter]) -> str:
  """The table of all kinds, with their sum in the last line."""
  whole: collections.Counter[str] = collections.Counter()
  lines = [HEADER]
  for name, counts in total.items():
    lines.append(describe(name, counts))
    whole.update({key: n for key, n in counts.items() if key != "lines"})
  return "\n".join([*lines, describe("all", whole)]) + "\n"


class Worker:
  """A process that reads cases, and is replaced when it crashes or hangs."""

  def __init__(self, context, arguments):
    self._context, self._arguments = context, arguments
    self._start()

  def _start(self) -> None:
    self._pipe, theirs = self._context.Pipe()
    out = str(self._arguments.out)
    options = (out, self._arguments.lines)
    self._process = self._context.Process(target=serve, args=(theirs, *options))
    self._process.start()
    theirs.close()
    self.shares = self._pipe.recv()

  def stop(self) -> None:
    self._pipe.send(None)
    self._process.join()

  def run_kind(self, name: str, first: int, cases: int) -> collections.Counter:
    """Reads that many cases of a kind, and returns what was counted."""
    counts: collections.Counter[str] = collections.Counter()
    last = first + cases
    log = open(self._arguments.out / f"{name.replace(' ', '-')}.txt", "a")
    while first < last:
      self._pipe.send((name, first, last))
      while first < last:
        if not self._pipe.poll(SILENT):
          fault = f"hang: no answer within {SILENT:g} s"
          break
        try:
          seeds, found, finds, seconds, lines = self._pipe.recv()
        except EOFError:
          self._process.join()
          fault = f"crash: exit status {self._process.exitcode}"
          break
        first += seeds
        counts.update(found)
        counts["cases"] += seeds
        counts["finds"] += len(finds)
        counts["ms"] += round(1000 * seconds)
        counts["lines"] = lines
        for find in finds:
          log.write(f"{find}\n")
      else:
        break
      # The worker counts in steps; a case of this step ended it.
      log.write(f"seed {first} or one of the next {STEP}: {fault}\n")
      counts["finds"] += 1
      counts["cases"] += 1
      self._process.kill()
      self._process.join()
      self._start()
      first += STEP
    log.write(f"{describe(name, counts)}\n")
    log.close()
    return counts


STEP = 50  # cases that are counted together


def describe(name: str, counts: collections.Counter) -> str:
  """One line of the table."""
  columns = ("cases", "taken", "aside", "refused", "finds")
  numbers = [f"{counts[column]:,}" for column in columns]
  numbers.append(f"{counts['ms'] / 1000:.0f}")
  return " | ".join([name, *numbers, f"{counts['lines']:,}"])


class SlowError(Exception):
  """A case took more than SLOWEST seconds."""


def serve(pipe, out: str, lines: str | None) -> None:
  """Reads cases as the pipe says, until it says None."""
  import signal

  logging.disable(logging.CRITICAL)
  warnings.simplefilter("ignore")
  from tests.fuzz import kinds, reached

  seen = reached.Reached() if lines else None
  table = {kind.name: kind for kind in kinds.list_kinds()}

  def give_up(number, frame):
    raise SlowError(f"hang: more than {SLOWEST:g} s")

  signal.signal(signal.SIGPROF, give_up)
  limit = measure_address_space() + ROOM
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  pipe.send({name: kind.share for name, kind in table.items()})
  # In memory, since files are written for each case.
  room = "/dev/shm" if os.path.isdir("/dev/shm") else None
  while (task := pipe.recv()) is not None:
    name, first, last = task
    with tempfile.TemporaryDirectory(dir=room) as folder:
      guide = seen if lines == "guide" else None
      sampler = kinds.Sampler(table[name], pathlib.Path(folder), guide)
      if seen:
        seen.restart()
      sampler.check_examples()
      for start in range(first, last, STEP):
        found: collections.Counter[str] = collections.Counter()
        finds: list[str] = []
        seconds = time.process_time()
        for seed in range(start, min(last, start + STEP)):
          peak = measure_peak()
          signal.setitimer(signal.ITIMER_PROF, SLOWEST)
          try:
            found[sampler.run(seed)] += 1
            fault = None
          except BaseException as error:  # a panic of Rust is no Exception
            fault = describe_find(error)
          finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
          if measure_peak() - peak > GROWTH:
            fault = f"growth by {(measure_peak() - peak) >> 20:,} MB"
          if fault is not None:
            finds.append(f"seed {seed}: {fault}")
            keep_find(sampler, seed, pathlib.Path(out), fault)
        seconds = time.process_time() - seconds
        run = seen.lines if seen else 0
        pipe.send((min(last, start + STEP) - start, found, finds, seconds, run))


def describe_find(error: BaseException) -> str:
  """The exception, and the last frame in the package's own code."""
  frames = traceback.extract_tb(error.__traceback__)
  own = [frame for frame in frames if "mllm_selector_jax/" in frame.filename]
  where = f" ({os.path.basename(own[-1].filename)}:{own[-1].lineno})" if own else ""
  return f"{type(error).__name__}: {str(error)[:200]!r}{where}"


def keep_find(sampler, seed: int, out: pathlib.Path, fault: str) -> None:
  """Keeps the files of a find, the first of each fault."""
  digest = hashlib.sha256(fault.partition(": ")[2][-60:].encode()).hexdigest()[:12]
  folder = out / "finds" / f"{sampler.kind.name.replace(' ', '-')}-{digest}"
  if folder.exists() or sampler.latest is None:
    return
  for name, data in sampler.latest.files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  for name, data in sampler.latest.changed.items():
    (folder / name).write_bytes(data)
  (folder / "find.log").write_text(f"seed {seed}: {fault}\n")


def measure_peak() -> int:
  """The most memory that this process had so far, in bytes."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def measure_address_space() -> int:
  with open("/proc/self/statm") as file:
    return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
  sys.exit(main())
