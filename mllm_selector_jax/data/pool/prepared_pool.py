"""Writes a pool once as a TFDS data set in ArrayRecord: quick to read at random.

Every row of the pool is a record of it, in order, also those that are set aside:
`record`, the record as JSON as it stood in its file; `images`, the bytes of its image
files; their `names`; `id` and `source` as the check found them; and where images or
record could not be read, `reason` and `detail`. grain and TFDS read it, and so does
`formats`.
"""

import collections
import concurrent.futures
import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from mllm_selector_jax import plugins, storage
from mllm_selector_jax.data import formats, record_schemas
from mllm_selector_jax.data.formats import tf_example
from mllm_selector_jax.data.formats.array_record_file import open_writer
from mllm_selector_jax.data.images.image_folders import AnyFolders
from mllm_selector_jax.data.images.pictures import read_all
from mllm_selector_jax.data.pool.pool_table import PoolTable, read_table
from mllm_selector_jax.data.pool.row_reading import name_pictures
from mllm_selector_jax.types import InputError, RowError, RunError

NAME = "pool"  # of the data set
VERSION = "1.0.0"
_TEXTS = ("record", "id", "source", "reason", "detail")
_CLASSES = "tensorflow_datasets.core.features"

Progress = Callable[[int, int | None], None]


def shard_names(rows: int, shard_rows: int) -> list[str]:
  """Names of the data set's files."""
  count = max(1, -(-rows // shard_rows))
  return [
    f"{NAME}-train.array_record-{number:05d}-of-{count:05d}" for number in range(count)
  ]


def write_shards(
  table: str | os.PathLike,
  images: AnyFolders,
  out: Path,
  shard_rows: int,
  workers: int,
  progress: Progress,
  part: tuple[int, int] = (0, 1),
) -> None:
  """Writes those files of the data set that are not there yet.

  Args:
    table: the checked pool's file.
    images: folders of the images.
    out: folder of the data set; a file in it is whole.
    shard_rows: rows of a file.
    workers: processes; 1 writes in this one.
    progress: is told of the rows written, and of how many there are.
    part: which share of the files is written: number and count of shares.

  Raises:
    InputError: the pool changed since it was checked.
    RunError: a file cannot be written.
  """
  rows = len(read_table(table))
  names = shard_names(rows, shard_rows)
  mine = range(part[0], len(names), part[1])
  spans = {n: (n * shard_rows, min(rows, (n + 1) * shard_rows)) for n in mine}
  total = sum(stop - start for start, stop in spans.values())
  waiting = {n: span for n, span in spans.items() if not (out / names[n]).exists()}
  done = total - sum(stop - start for start, stop in waiting.values())
  progress(done, total)
  tasks = [(table, images, out / names[n], *span) for n, span in waiting.items()]
  with contextlib.ExitStack() as stack:
    results: Iterator[int]
    if workers == 1:
      results = map(_write_shard, tasks)
    else:
      pool = concurrent.futures.ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        _begin_worker,
        ({formats.SETTING: plugins.list_given(formats.SETTING)},),
      )
      # What ends this early leaves the files at work to be finished, no others.
      stack.callback(pool.shutdown, cancel_futures=True)
      futures = [pool.submit(_write_shard, task) for task in tasks]
      results = (f.result() for f in concurrent.futures.as_completed(futures))
    try:
      for written in results:
        done += written
        progress(done, total)
    except concurrent.futures.BrokenExecutor as error:
      raise RunError(
        "A process that prepares the pool was killed, perhaps for lack of memory;"
        " give fewer prepare.workers."
      ) from error


def write_description(out: Path, rows: int, shard_rows: int) -> None:
  """Writes what TFDS reads a data set's form from; its files are there."""
  names = shard_names(rows, shard_rows)
  starts = range(0, rows, shard_rows)
  lengths = [min(rows, start + shard_rows) - start for start in starts]
  describe(out, NAME, dict(zip(names, lengths, strict=True)))
  (out / "features.json").write_text(json.dumps(_features(), indent=2))


def describe(out: Path, name: str, lengths: dict[str, int]) -> None:
  """Writes `dataset_info.json` beside a data set's files.

  Args:
    out: the folder.
    name: of the data set.
    lengths: records of each of its files, in order.
  """
  info = {
    "name": name,
    "version": VERSION,
    "description": "A pool of visual instructions: records and image bytes.",
    "fileFormat": "array_record",
    "disableShuffling": True,
    "splits": [
      {
        "name": "train",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "numBytes": str(sum((out / file).stat().st_size for file in lengths)),
        "shardLengths": [str(length) for length in lengths.values()],
      }
    ],
  }
  (out / "dataset_info.json").write_text(json.dumps(info, indent=2))


def _features() -> dict:
  text = {"pythonClassName": f"{_CLASSES}.text_feature.Text", "text": {}}
  shape = {"dimensions": ["-1", "-1", "3"]}
  image = {
    "pythonClassName": f"{_CLASSES}.image_feature.Image",
    "image": {"dtype": "uint8", "shape": shape},
  }

  def sequence(feature: dict) -> dict:
    return {
      "pythonClassName": f"{_CLASSES}.sequence_feature.Sequence",
      "sequence": {"feature": feature, "length": "-1"},
    }

  return {
    "pythonClassName": f"{_CLASSES}.features_dict.FeaturesDict",
    "featuresDict": {
      "features": {
        **dict.fromkeys(_TEXTS, text),
        "names": sequence(text),
        "images": sequence(image),
      }
    },
  }


def _write_shard(task: tuple[str | os.PathLike, AnyFolders, Path, int, int]) -> int:
  table, images, path, start, stop = task
  pool = _open_table(os.fspath(table))
  try:
    with storage.writing(path) as partial, open_writer(partial) as writer:
      for row in range(start, stop):
        writer.write(make_example(pool, row, images))
  except (OSError, RuntimeError) as error:
    raise RunError(f"{path}: could not be written ({error}).") from error
  return stop - start


def _begin_worker(trusted: dict[str, tuple[str, ...]]) -> None:
  """Trusts the run's plug-ins, and leaves stopping to the first process.

  A signal may go to all of them. A worker does not outlive the first process: where
  that is killed, nobody else tells its workers, which would wait for ever.
  """
  plugins.trust(trusted)
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  assert parent is not None, "only workers watch their parent"
  multiprocessing.connection.wait([parent.sentinel])
  os._exit(1)


_OPEN: collections.OrderedDict[str, PoolTable] = collections.OrderedDict()


def _open_table(path: str) -> PoolTable:
  """The table, opened once a process."""
  if path not in _OPEN:
    _OPEN.clear()
    _OPEN[path] = read_table(path)
  return _OPEN[path]


def make_example(pool: PoolTable, row: int, images: AnyFolders) -> bytes:
  """One row as a tf.train.Example.

  Raises:
    InputError: the pool changed since it was checked.
  """
  reason, detail = "", ""
  text, names, data = b"", [], []
  try:
    record = pool.record(row)
    if record.value is None:
      assert record.reason is not None, "a record without a value has a reason"
      raise RowError(record.reason, record.detail)
    text = pool.text(row)
    pictures = record_schemas.read_pictures(record)
    names = list(name_pictures(pictures, record.offset))
    data = read_all(pictures, images)
  except RowError as error:
    reason, detail = error.reason, error.detail
  except InputError:
    if pool.ok[row]:
      raise
    reason, detail = pool.reason[row] or "", pool.detail[row] or ""
  if reason and pool.ok[row]:
    raise InputError(
      f"Row {row:,} (id {pool.id[row]}) changed since the pool was checked: {detail}."
      " Put the old file back, or check the pool again with --force."
    )
  values: dict[str, str | bytes] = {
    "record": text,
    "id": pool.id[row],
    "source": pool.source[row],
    "reason": reason,
    "detail": detail,
  }
  return tf_example.encode(
    {
      **{name: [_encode(value)] for name, value in values.items()},
      "names": [_encode(name) for name in names],
      "images": data,
    }
  )


def _encode(value: str | bytes) -> bytes:
  return value.encode("utf-8", "replace") if isinstance(value, str) else value
