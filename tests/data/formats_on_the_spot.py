"""One pool of LLaVA records, written in every format that is read."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mllm_selector_jax.data.formats import tf_example
from mllm_selector_jax.data.formats.array_record_file import open_writer

TEXT = {"text": {}}
IMAGE = {"image": {"dtype": "uint8"}}
TURN = {"featuresDict": {"features": {"from": TEXT, "value": TEXT}}}


def _sequence(feature: dict) -> dict:
  return {"sequence": {"feature": feature, "length": "-1"}}


def as_messages(record: dict) -> dict:
  """LLaMA-Factory's form."""
  roles = {"human": "user", "gpt": "assistant"}
  turns = [
    {"role": roles[turn["from"]], "content": turn["value"]}
    for turn in record["conversations"]
  ]
  found = {"id": record["id"], "messages": turns}
  return found | ({"images": [record["image"]]} if "image" in record else {})


def as_parts(record: dict) -> dict:
  """TRL's form: an image is a part of a message."""
  found = as_messages(record)
  for message in found["messages"]:
    text, parts = message["content"], []
    if text.startswith("<image>\n"):
      text, parts = text.removeprefix("<image>\n"), [{"type": "image", "text": None}]
    message["content"] = [*parts, {"type": "text", "text": text}]
  return found


def as_texts(record: dict) -> dict:
  """Cauldron's form: the text does not tell where the image stands."""
  values = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"]]
  texts = [
    {"user": user, "assistant": assistant}
    for user, assistant in zip(values[::2], values[1::2], strict=True)
  ]
  found = {"id": record["id"], "texts": texts}
  return found | ({"images": [record["image"]]} if "image" in record else {})


def write_json(records: list[dict], folder: Path, out: Path, convert=None) -> str:
  records = [convert(record) for record in records] if convert else records
  out.write_text(json.dumps(records, ensure_ascii=False))
  return str(out)


def write_lines(records: list[dict], folder: Path, out: Path) -> str:
  out.write_text("".join(json.dumps(record) + "\n" for record in records))
  return str(out)


def write_wrapped(records: list[dict], folder: Path, out: Path) -> str:
  out.write_text(json.dumps({"info": {"year": 1}, "data": records}, indent=1))
  return str(out)


def write_by_id(records: list[dict], folder: Path, out: Path) -> str:
  bare = [{key: value for key, value in r.items() if key != "id"} for r in records]
  ids = (record["id"] for record in records)
  out.write_text(json.dumps(dict(zip(ids, bare, strict=True))))
  return str(out)


def write_objects(records: list[dict], folder: Path, out: Path) -> str:
  out.write_text("\n".join(json.dumps(record, indent=2) for record in records))
  return str(out)


def write_recoded(records: list[dict], folder: Path, out: Path) -> str:
  out.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-16")
  return str(out)


def write_gzip(records: list[dict], folder: Path, out: Path) -> str:
  write_lines(records, folder, out)
  out.write_bytes(gzip.compress(out.read_bytes()))
  return str(out)


def write_zstd(records: list[dict], folder: Path, out: Path) -> str:
  write_tar(records, folder, out)
  data = out.read_bytes()
  with pa.CompressedOutputStream(str(out), "zstd") as stream:
    stream.write(data)
  return str(out)


def write_arrow(
  records: list[dict], folder: Path, out: Path, make=pa.ipc.new_stream
) -> str:
  table = pq.read_table(write_parquet(records, folder, out))
  with make(out, table.schema) as writer:
    writer.write_table(table, max_chunksize=4)
  return str(out)


def write_saved(records: list[dict], folder: Path, out: Path) -> str:
  """As `datasets.save_to_disk` does: a folder for each split."""
  for split in ("train", "test"):
    (out / split).mkdir(parents=True)
    write_arrow(records, folder, out / split / "data-00000-of-00001.arrow")
    files = [{"filename": "data-00000-of-00001.arrow"}]
    state = {"_data_files": files, "_fingerprint": "", "_split": split}
    (out / split / "state.json").write_text(json.dumps(state))
    (out / split / "dataset_info.json").write_text("{}")
    (out / split / "cache-0123.arrow").write_bytes(b"what map left behind")
  (out / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
  return str(out)


def write_parquet(records: list[dict], folder: Path, out: Path, convert=None) -> str:
  rows = []
  for record in records:
    image = None
    if "image" in record:
      image = {"bytes": _read(folder, record["image"]), "path": record["image"]}
    row = convert(record) if convert else dict(record)
    if convert:
      row["images"] = [image] if image else []
    else:
      row["image"] = image
    rows.append(row)
  return _write_table(rows, out)


def write_parquet_paths(records: list[dict], folder: Path, out: Path) -> str:
  return _write_table([as_messages(record) for record in records], out)


def _write_table(rows: list[dict], out: Path) -> str:
  keys = dict.fromkeys(key for row in rows for key in row)
  columns = {key: pa.array([row.get(key) for row in rows]) for key in keys}
  pq.write_table(pa.table(columns), out, row_group_size=5)
  return str(out)


def write_tar(records: list[dict], folder: Path, out: Path) -> str:
  with tarfile.open(out, "w") as archive:
    for number, record in enumerate(records):
      members = {"json": json.dumps(record, ensure_ascii=False).encode()}
      if "image" in record:
        members["png"] = _read(folder, record["image"])
      for suffix, data in members.items():
        info = tarfile.TarInfo(f"samples/{number:06d}.{suffix}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
  return str(out)


def write_tfds(records: list[dict], folder: Path, out: Path) -> str:
  out.mkdir()
  features = {
    "id": TEXT,
    "image_path": TEXT,
    "images": _sequence(IMAGE),
    "conversations": _sequence(TURN),
  }
  write_features(out, features)
  with open_writer(out / "pool-train.array_record-00000-of-00001") as writer:
    for record in records:
      turns = record["conversations"]
      has_image = "image" in record
      values = {
        "id": [record["id"].encode()],
        "images": [_read(folder, record["image"])] if has_image else [],
        "conversations/from": [turn["from"].encode() for turn in turns],
        "conversations/value": [turn["value"].encode() for turn in turns],
      }
      writer.write(tf_example.encode(values))
  return str(out)


def write_features(folder: Path, features: dict) -> None:
  tree = {"featuresDict": {"features": features}}
  (folder / "features.json").write_text(json.dumps(tree))


def write_array_record(records: list[dict], folder: Path, out: Path) -> str:
  with open_writer(out) as writer:
    for record in records:
      writer.write(json.dumps(record).encode())
  return str(out)


def write_mixture(records: list[dict], folder: Path, out: Path) -> str:
  half = len(records) // 2
  write_lines(records[:half], folder, out.with_suffix(".jsonl"))
  write_tar(records[half:], folder, out.with_suffix(".tar"))
  out.write_text(
    f"datasets:\n  - json_path: {out.stem}.jsonl\n    sampling_strategy: all\n"
    f"  - json_path: {out.stem}.tar\n    sampling_strategy: first:100%\n"
  )
  return str(out)


def _read(folder: Path, name: str) -> bytes:
  return (folder / name).read_bytes()


# By name: the file's suffix, and what writes it.
WRITERS = {
  "llava": (".json", write_json),
  "lines": (".jsonl", write_lines),
  "messages": (".json", lambda *to: write_json(*to, as_messages)),
  "texts": (".json", lambda *to: write_json(*to, as_texts)),
  "parts": (".json", lambda *to: write_json(*to, as_parts)),
  "parquet": (".parquet", write_parquet),
  "parquet messages": (".parquet", lambda *to: write_parquet(*to, as_messages)),
  "parquet parts": (".parquet", lambda *to: write_parquet(*to, as_parts)),
  "parquet texts": (".parquet", lambda *to: write_parquet(*to, as_texts)),
  "parquet paths": (".parquet", write_parquet_paths),
  "tar": (".tar", write_tar),
  "tfds": ("", write_tfds),
  "array_record": (".array_record", write_array_record),
  "mixture": (".yaml", write_mixture),
  "wrapped": (".json", write_wrapped),
  "by id": (".json", write_by_id),
  "objects": (".json", write_objects),
  "utf-16": (".json", write_recoded),
  "gzip": (".jsonl.gz", write_gzip),
  "zstd": (".tar", write_zstd),
  "arrow": (".arrow", write_arrow),
  "feather": (".feather", lambda *to: write_arrow(*to, pa.ipc.new_file)),
  "saved": ("", write_saved),
}


def write_pool(name: str, records: list[dict], folder: Path, place: Path) -> str:
  """Writes LLaVA records, whose images lie in `folder`; gives `pool.data`."""
  suffix, write = WRITERS[name]
  return write(records, folder, place / f"pool_{name.replace(' ', '_')}{suffix}")
