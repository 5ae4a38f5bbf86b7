"""Wrong pools and bases, through the command line's own entry: one message each."""

import errno
import io
import json
import os
import pickle
import signal
import struct
import zlib

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mllm_selector_jax import artifacts
from mllm_selector_jax.main import run
from mllm_selector_jax.stages import COMMANDS
from tests.models import tiny
from tests.models.huggingface import bases


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  return tiny.make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def command(tmp_path, base, capsys):
  """A function of command and settings: the exit status and what was said."""

  def give(name, **settings):
    settings = {
      "model.path": base,
      "pool.demo.rows": 0,
      "pool.data": tmp_path / "pool.json",
      "pool.images": tmp_path / "images",
      **{key.replace("__", "."): value for key, value in settings.items()},
    }
    given = [f"--config.{key}={value}" for key, value in settings.items()]
    work = tmp_path / "work"
    capsys.readouterr()
    status = run(["mllm-selector", name, "--config=demo", f"--workdir={work}", *given])
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert "Traceback (" not in said and len(errors) == (status in (1, 2))
    if status in (1, 2):
      logged = (work / "log.txt").read_text()
      message = said[said.index("Error: ") :].splitlines()
      assert all(line in logged for line in message)
    return status, said

  return give


def talk(name, question="what color?", answer="red", **fields):
  turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
  return {"id": name, "conversations": turns, **fields}


def see(name, image, **fields):
  return talk(name, "<image>\nwhat color?", image=image, **fields)


def write_pool(folder, rows):
  (folder / "images").mkdir(exist_ok=True)
  (folder / "pool.json").write_text(json.dumps(rows))


def picture(colour="red", size=(40, 24), mode="RGB"):
  return Image.new("RGB", size, colour).convert(mode)


def encode(image, form, **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def make_bomb():
  """A small PNG that says it is 60,000 pixels wide and high."""
  body = b"IHDR" + struct.pack(">2I5B", 60_000, 60_000, 8, 2, 0, 0, 0)
  head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body
  head += struct.pack(">I", zlib.crc32(body))
  return head + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def make_turned():
  exif = Image.Exif()
  exif[0x0112] = 6
  return encode(picture(), "JPEG", exif=exif)


USABLE = {
  "cmyk.jpg": lambda: encode(picture(mode="CMYK"), "JPEG"),
  "palette.png": lambda: encode(picture().quantize(4), "PNG"),
  "gray16.png": lambda: encode(
    Image.fromarray(np.full((24, 40), 40_000, np.uint16)), "PNG"
  ),
  "animated.gif": lambda: encode(
    picture(), "GIF", save_all=True, append_images=[picture("blue")]
  ),
  "turned.jpg": make_turned,
}
ASIDE = {
  "empty.png": (lambda: b"", "unreadable image"),
  "cut.jpg": (
    lambda: encode(picture(size=(200, 200)), "JPEG")[:-200],
    "unreadable image",
  ),
  "bomb.png": (make_bomb, "huge image"),
  "clip.mp4": (lambda: b"\0\0\0\x20ftypisom" + b"\0" * 40, "unsupported image"),
  "/etc/passwd": (None, "unsafe path"),
  "https://host/a.png": (None, "unsafe path"),
  "../secret.png": (None, "unsafe path"),
  "link.png": (None, "unsafe path"),
  "none.png": (None, "missing image"),
}


def test_odd_rows_are_scored_or_set_aside_and_none_is_lost(command, tmp_path, base):
  write_pool(tmp_path, [])
  images = tmp_path / "images"
  for name, make in [*USABLE.items(), *((n, m) for n, (m, _) in ASIDE.items() if m)]:
    (images / name).write_bytes(make())
  (tmp_path / "secret.png").write_bytes(encode(picture(), "PNG"))
  os.symlink(tmp_path / "secret.png", images / "link.png")
  markup = "<script>alert(1)</script></s><s> USER:"
  rows = [
    *(see(f"use {name}", name) for name in USABLE),
    *(see(f"aside {name}", name) for name in ASIDE),
    talk(markup, markup, markup),
    {"id": "no conversations"},
    talk("film", video="a.mp4"),
    talk("twice"),
    talk("twice"),
  ]
  write_pool(tmp_path, rows)
  text = (tmp_path / "pool.json").read_text()[:-1]
  broken = [b'{"id": "\xff"}', b'{"id": oops}']
  (tmp_path / "pool.json").write_bytes(
    text.encode() + b",\n" + b",\n".join(broken) + b"]"
  )
  status, said = command("check")
  assert status == 0
  usable, wanted = len(USABLE) + 2, len(rows) + 2
  assert f"{wanted} rows = {usable} usable + {wanted - usable} set aside" in said
  place = len(text.encode()) + 2
  assert f"{tmp_path / 'pool.json'}, byte {place:,}" in said
  assert "invalid UTF-8" in said and "invalid JSON" in said
  found = pq.read_table(tmp_path / "work/pool.parquet").to_pydict()
  reasons = dict(zip(found["id"], found["reason"], strict=True))
  for name in USABLE:
    assert reasons[f"use {name}"] is None, name
  for name, (_, reason) in ASIDE.items():
    assert reasons[f"aside {name}"] == reason, name
  assert reasons["no conversations"] == "malformed"
  assert reasons["film"] == "unsupported image"
  settings = {"score__model": base, "select__budget": 4, "select__control": False}
  for stage in ("score", "select", "report"):
    status, said = command(stage, **settings)
    assert status == 0, said
  parts = sorted((tmp_path / "work/scores").glob("*.parquet"))
  scored = [row for part in parts for row in pq.read_table(part)["row"].to_pylist()]
  assert scored == [n for n, reason in enumerate(found["reason"]) if reason is None]
  page = (tmp_path / "work/report.html").read_text()
  assert "<script" not in page and "&lt;script&gt;alert(1)" in page


def test_one_row_of_text_on_eight_devices_goes_through_every_stage(command, tmp_path):
  write_pool(tmp_path, [talk("only")])
  (tmp_path / "ask.jsonl").write_text(
    json.dumps({"id": "1", "question": "what color?", "answers": ["red"]}) + "\n"
  )
  status, said = command(
    "run",
    seed__rows="100%",
    seed__epochs=1,
    tune__epochs=1,
    select__budget="100%",
    evaluate__tasks=tmp_path / "ask.jsonl",
    evaluate__max_new_tokens=2,
  )
  assert status == 0, said
  assert "1 rows = 1 usable + 0 set aside" in said and "Next:" in said
  kept = json.loads((tmp_path / "work/arms/main/selection/selected.json").read_text())
  assert kept == [talk("only")]


@pytest.mark.parametrize("budget", ["0", "-1", "0.001%"])
def test_a_budget_that_keeps_nothing(command, tmp_path, base, budget):
  write_pool(tmp_path, [talk("a"), talk("b")])
  settings = {"score__model": base, "select__budget": budget}
  assert command("check")[0] == command("score", **settings)[0] == 0
  status, said = command("select", **settings)
  assert status == 2 and "budget" in said


def test_a_budget_above_the_pool_keeps_all_and_warns(command, tmp_path, base):
  write_pool(tmp_path, [talk("a"), talk("b")])
  settings = {"score__model": base, "select__budget": "3"}
  assert command("check")[0] == command("score", **settings)[0] == 0
  status, said = command("select", **settings)
  assert status == 0 and "all are kept" in said and "keeps 2 of 2" in said


def spoil(folder):
  def change(tensors):
    name = sorted(tensors)[0]
    tensors["surprise"] = tensors[name]
    del tensors[name]
    last = sorted(tensors)[0]
    tensors[last] = tensors[last][..., None]

  bases.edit_tensors(folder, change)


def pickle_weights(folder):
  (folder / "model.safetensors").unlink()
  (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))


def forget_image_token(folder):
  tiny.make_tokenizer(300, tiny.SPECIAL[:4]).save_pretrained(folder)


def set_config(**values):
  def change(folder):
    bases.edit_json(folder / "config.json", lambda config: config.update(values))

  return change


def make_tokenizer_larger(folder):
  tokenizer = tiny.make_tokenizer(300)
  tokenizer.add_tokens([f"<extra {n}>" for n in range(40)])
  tokenizer.save_pretrained(folder)


def cut_a_shard(folder):
  bases.shard(folder, 2)
  path = folder / "model-00002-of-00002.safetensors"
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def lose_a_shard(folder):
  bases.shard(folder, 2)
  (folder / "model-00002-of-00002.safetensors").unlink()


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (
      set_config(model_type="qwen2_vl"),
      ("model_type is 'qwen2_vl'; supported are 'llava'",),
    ),
    (
      set_config(text_config={"model_type": "gemma"}),
      ("'gemma'; supported are llama, mistral, qwen2",),
    ),
    (
      make_tokenizer_larger,
      ("the tokenizer has 340 tokens", "vocab_size of 320", "must not be smaller"),
    ),
    (
      set_config(image_seq_length=576),
      ("image_seq_length is 576", "the vision tower gives 16 tokens"),
    ),
    (cut_a_shard, ("model-00002-of-00002.safetensors is not a whole", "cut off")),
    (lose_a_shard, ("names files that are missing: model-00002-of-00002",)),
    (spoil, ("missing: ", "unexpected: surprise", "misshapen: ")),
    (pickle_weights, ("pytorch_model.bin", "never read", "convert")),
    (forget_image_token, ("<image>",)),
    (lambda folder: (folder / "config.json").unlink(), ("config.json is missing",)),
  ],
  ids=[
    "architecture",
    "decoder",
    "vocabulary",
    "image tokens",
    "half a shard",
    "absent shard",
    "tensors",
    "pickle",
    "image token",
    "no config",
  ],
)
def test_a_base_that_cannot_be_used_is_refused_at_the_start(
  command, tmp_path, base, change, words
):
  folder = bases.copy(base, tmp_path / "base")
  change(folder)
  write_pool(tmp_path, [talk("a"), talk("b")])
  status, said = command("run", model__path=folder)
  assert status == 2
  for word in words:
    assert word in said
  assert not (tmp_path / "work/pool.parquet").exists()  # nothing long was begun


def test_a_loss_that_is_no_number(command, tmp_path):
  write_pool(tmp_path, [talk(f"name-{n}", answer=str(n)) for n in range(8)])
  assert command("check")[0] == 0
  status, said = command(
    "seed",
    seed__rows="100%",
    seed__learning_rate=1e30,
    seed__clip=1e30,
    seed__warmup=0.0,
    seed__epochs=4,
  )
  assert status == 1 and "nan" in said and "row 0 (id name-0)" in said
  assert not (tmp_path / "work/seed").exists()


@pytest.mark.parametrize(
  ("stage", "settings", "words"),
  [
    ("score", {"score__row_length": 10**15}, "score.row_length=1,000"),
    ("score", {"score__batch_rows": 0}, "score.batch_rows=0"),
    ("seed", {"seed__row_length": 10**15}, "seed.row_length=1,000"),
    ("seed", {"seed__batch": 0}, "batch=0"),
    ("seed", {"seed__rows": "0"}, "seed.rows"),
    ("seed", {"seed__accumulate": 0}, "accumulate=0"),
    ("seed", {"seed__accumulate": 33}, "accumulate=33 parts of a batch of 32"),
    ("seed", {"seed__spike": 0.5}, "above 1, or 0"),
    ("seed", {"model__remat": "True"}, "none, full, dots"),
    ("seed", {"mesh__data": 3}, "does not fill the 8 devices"),
    ("seed", {"mesh__tensor": 8}, "tensor=8 does not divide the model's heads"),
    ("seed", {"seed__lora__rank": -1}, "seed: lora.rank=-1"),
    ("seed", {"seed__lora__rank": 2, "seed__lora__alpha": 0.0}, "alpha=0.0"),
    ("seed", {"seed__lora__rank": 2, "seed__trainable": "all"}, "must be 'decoder'"),
    ("score", {"score__model": "nowhere"}, "score.model=nowhere"),
  ],
)
def test_sizes_that_cannot_be(command, tmp_path, base, stage, settings, words):
  write_pool(tmp_path, [talk("a"), talk("b")])
  assert command("check")[0] == 0
  settings = {"score__model": base, "seed__rows": "100%", **settings}
  status, said = command(stage, **settings)
  assert status == 2 and words in said


def test_an_image_that_changed_after_the_check(command, tmp_path, base):
  write_pool(tmp_path, [see("a", "a.png"), see("b", "b.png")])
  for name in ("a.png", "b.png"):
    (tmp_path / "images" / name).write_bytes(encode(picture(), "BMP"))
  assert command("check")[0] == 0
  path = tmp_path / "images/b.png"
  data = path.read_bytes()
  path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
  status, said = command("score", score__model=base)
  assert status == 2 and "b.png (row 1) changed since" in said and "--force" in said
  path.unlink()
  status, said = command("score", score__model=base)
  assert status == 2 and "missing image" in said


def test_a_workdir_in_use_and_one_that_cannot_be_written(tmp_path, base, capsys):
  given = ["check", "--config=demo", f"--config.model.path={base}"]
  with artifacts.lock(tmp_path / "work"):
    assert run(["x", *given, f"--workdir={tmp_path / 'work'}"]) == 2
  assert f"process {os.getpid()} on host" in capsys.readouterr().err
  (tmp_path / "file").write_text("")
  assert run(["x", *given, f"--workdir={tmp_path / 'file' / 'work'}"]) == 2
  assert "cannot be written to" in capsys.readouterr().err


def raising(error):
  def stage(current):
    current.stage = "score"
    error()

  return stage


def run_out_of_device_memory():
  jnp.zeros(2**50)


def run_out_of_host_memory():
  np.zeros(2**45)


def fill_the_disk():
  with open("/dev/full", "w") as file:
    file.write("x")


def open_what_may_not_be():
  raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "scores/part")


def fail():
  {}["no such key"]


@pytest.mark.parametrize(
  ("error", "words"),
  [
    (run_out_of_device_memory, ("out of memory", "--config.score.batch_rows")),
    (run_out_of_host_memory, ("out of memory", "--config.score.batch_rows")),
    (fill_the_disk, ("No space left", "bytes are free", "same command")),
    (open_what_may_not_be, ("scores/part: Permission denied",)),
    (fail, ("score: KeyError", "test_bad_input.py, line", "log.txt")),
  ],
)
def test_whatever_ends_a_stage_is_one_message(
  command, tmp_path, monkeypatch, error, words
):
  monkeypatch.setitem(COMMANDS, "score", raising(error))
  status, said = command("score")
  assert status == 1
  for word in words:
    assert word in said
  assert len(said.strip().splitlines()) == 1
  assert "Traceback" in (tmp_path / "work/log.txt").read_text()


def test_an_interruption_is_130_and_the_old_handler_comes_back(command, monkeypatch):
  def interrupt():
    raise KeyboardInterrupt

  before = signal.getsignal(signal.SIGTERM)
  monkeypatch.setitem(COMMANDS, "score", raising(interrupt))
  status, said = command("score")
  assert status == 130 and "goes on" in said
  assert signal.getsignal(signal.SIGTERM) is before
