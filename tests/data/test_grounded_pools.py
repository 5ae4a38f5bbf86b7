"""Pools whose records state boxes: checked, read for training, exported, prepared."""

import dataclasses
import json

import pytest

from mllm_selector_jax.data.images.image_folders import ImageFolders
from mllm_selector_jax.data.packing import loader
from mllm_selector_jax.data.pool import pool_check, pool_summary, prepared_pool
from mllm_selector_jax.data.pool.pool_table import read_table
from mllm_selector_jax.data.pool.summary_text import format_summary
from mllm_selector_jax.data.tokens.box_forms import BOX_FORMS
from mllm_selector_jax.data.tokens.conversation import TEMPLATES, Encoder
from mllm_selector_jax.data.tokens.specials import Count
from mllm_selector_jax.types import ImageOptions, InputError
from tests.data import formats_on_the_spot
from tests.data.pools_on_the_spot import talk, write_images
from tests.data.several_images import TILED
from tests.fixed_images import fixed_images
from tests.tokenizers_on_the_spot import make_tokenizer

MARKS = ("<|box_start|>", "<|box_end|>", "<|object_ref_start|>", "<|object_ref_end|>")
FRAMES = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
# Of an image of 7 x 9 pixels.
OBJECTS = {"ref": ["disc"], "bbox": [[1, 2, 3.5, 9]]}
WRITTEN = {
  "qwen2": (
    "<|object_ref_start|>disc<|object_ref_end|>",
    "<|box_start|>(143,222),(500,1000)<|box_end|>",
  ),
  "qwen2.5": ("disc", "[1, 2, 4, 8]"),
  "qwen3": ("disc", "[143, 222, 500, 1000]"),
  "llava": ("disc", "[0.22, 0.22, 0.5, 1.0]"),
}


def make_encoder(form="qwen2", options: ImageOptions | None = None, pixels=None):
  tokenizer = make_tokenizer("bytes")
  tokenizer.add_special_tokens({"additional_special_tokens": [*MARKS, *FRAMES]})
  token = tokenizer.convert_tokens_to_ids("<image>")
  images = fixed_images(token, 4, options)
  images = dataclasses.replace(images, resize_pixels=pixels)
  form = None if form is None else BOX_FORMS[form]
  return Encoder(tokenizer, TEMPLATES["vicuna_v1"], images, 2048, box_form=form)


def make_record(number, name="<ref-object>", box="<bbox>", **extra):
  turns = talk(f"<image>\nWhere is the {name}?", f"At {box}.")
  return {"id": f"id-{number}", "image": "a.png", "conversations": turns, **extra}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  folder = tmp_path_factory.mktemp("grounded")
  write_images(folder, "a.png")
  return folder


def check(path, images, out, encoder, **options):
  found = pool_check.check_pool([str(path)], images, encoder, 10_000, out, **options)
  return found, read_table(out)


def write_lines(records, path):
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  return path


@pytest.mark.parametrize("form", WRITTEN)
def test_stated_boxes_are_learned_as_if_the_text_spelled_them(images, tmp_path, form):
  records = [make_record(0, objects=OBJECTS), make_record(1, *WRITTEN[form])]
  encoder = make_encoder(form)
  path = write_lines(records, tmp_path / "pool.jsonl")
  found, table = check(path, images, tmp_path / "table", encoder)
  assert table.ok.all() and len(set(table.hash)) == 2
  for column in "tokens", "supervised", "answer", "prefix_tokens":
    stated, spelled = getattr(table, column)[0], getattr(table, column)[1]
    assert stated == spelled, column
  assert found["remarks"] == {pool_summary.GROUNDED: 1}
  folders = ImageFolders.of(images)
  reader = loader.Reader(table, encoder, folders, 10_000, loader.Cache(1 << 20))
  (stated, _), (spelled, _) = reader.read(0), reader.read(1)
  assert stated.tokens.tolist() == spelled.tokens.tolist()
  assert stated.supervised.tolist() == spelled.supervised.tolist()
  answer = encoder.tokenizer.decode(stated.tokens[stated.supervised])
  assert f"At {WRITTEN[form][1]}." in answer
  assert reader.count_specials(0) == reader.count_specials(1)
  if form == "qwen2":
    assert set(reader.count_specials(0)) == {Count(mark, True, 1) for mark in MARKS}


# The formats whose writers keep a record's further fields.
KINDS = (
  *("llava", "lines", "parquet", "tar", "array_record", "wrapped", "by id", "objects"),
  *("utf-16", "gzip", "zstd", "arrow", "feather", "saved", "mixture"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_objects_are_read_in_every_format(images, tmp_path, kind):
  norm = OBJECTS | {"bbox": [[0.5, 0.25]], "bbox_type": "norm1", "image_id": [0]}
  records = [
    make_record(0, objects=OBJECTS),
    make_record(1, "disc", "[1, 2]"),
    make_record(2, objects=norm),
    make_record(3, objects=OBJECTS | {"bbox": [[1, 2]]}),
  ]
  encoder = make_encoder()
  lines = write_lines(records, tmp_path / "lines.jsonl")
  _, wanted = check(lines, images, tmp_path / "wanted", encoder)
  path = formats_on_the_spot.write_pool(kind, records, images, tmp_path)
  _, table = check(path, images, tmp_path / "table", encoder)
  assert list(table.detail) == [None] * len(records)
  assert sorted(table.hash) == sorted(wanted.hash)
  assert sorted(table.tokens) == sorted(wanted.tokens)


def test_a_prepared_pool_has_the_same_rows(images, tmp_path):
  records = [
    make_record(0, objects=OBJECTS),
    make_record(1, objects=json.dumps(OBJECTS)),
  ]
  encoder = make_encoder()
  path = write_lines(records, tmp_path / "pool.jsonl")
  _, table = check(path, images, tmp_path / "table", encoder)
  made = tmp_path / "made"
  made.mkdir()
  prepared_pool.write_shards(tmp_path / "table", images, made, 4, 1, lambda *_: None)
  prepared_pool.write_description(made, len(table), 4)
  _, again = check(str(made), None, tmp_path / "again", encoder)
  assert again.hash.tolist() == table.hash.tolist()
  assert again.tokens.tolist() == table.tokens.tolist()
  assert table.hash[0] == table.hash[1]


def test_wrong_boxes_are_counted_with_what_was_found(images, tmp_path):
  records = [
    make_record(0, objects=OBJECTS | {"bbox": [[1, 2, 30, 4]]}),
    make_record(1, objects=OBJECTS | {"bbox": []}),
    make_record(2, objects=OBJECTS),
    make_record(3, "disc", objects=OBJECTS | {"bbox": [["1", 2]]}),
  ]
  path = write_lines(records, tmp_path / "pool.jsonl")
  found, table = check(path, images, tmp_path / "table", make_encoder())
  assert list(table.reason) == ["boxes", "boxes", None, "boxes"]
  assert "(1, 2, 30, 4), is outside of its image of 7 x 9" in table.detail[0]
  text = format_summary(found)
  assert "boxes         3" in text and "a box inside the image for each <bbox>" in text


def test_a_base_of_unknown_form_sets_stated_boxes_aside(images, tmp_path):
  records = [make_record(0, objects=OBJECTS), make_record(1, *WRITTEN["qwen3"])]
  path = write_lines(records, tmp_path / "pool.jsonl")
  found, table = check(path, images, tmp_path / "table", make_encoder(None))
  assert list(table.reason) == ["box form", None]
  assert "--config.model.box_form=qwen3" in format_summary(found)
  only = write_lines(records[:1], tmp_path / "only.jsonl")
  with pytest.raises(InputError, match="box_form=qwen3"):
    check(only, images, tmp_path / "other", make_encoder(None))


def test_boxes_in_text_beside_a_resized_image_are_counted(images, tmp_path):
  records = [
    make_record(0, "disc", "[1, 2, 3, 4]"),
    make_record(1, objects=OBJECTS),
    make_record(2, "disc", "the left"),
  ]
  path = write_lines(records, tmp_path / "pool.jsonl")
  for form, pixels, count in (
    ("qwen2.5", 30, 1),
    ("qwen2.5", None, 0),
    ("qwen3", 30, 0),
  ):
    encoder = make_encoder(form, TILED, pixels)
    found, table = check(path, images, tmp_path / f"{form}{pixels}", encoder)
    assert table.ok.all()
    assert found["remarks"].get(pool_summary.OTHER_PIXELS, 0) == count
    line = f"noted        1 rows: {pool_summary.OTHER_PIXELS}"
    assert (line in format_summary(found)) == bool(count)


def test_marks_of_images_that_a_text_spells_are_text(images, tmp_path):
  spelled = "".join(FRAMES)
  records = [
    make_record(0, f"{spelled} disc", f"{MARKS[0]}(1,2){MARKS[1]}"),
    make_record(1, "disc", spelled),
    {"id": "id-2", "conversations": talk(f"{spelled}What?", "Nothing.")},
  ]
  encoder = make_encoder()
  path = write_lines(records, tmp_path / "pool.jsonl")
  found, table = check(path, images, tmp_path / "table", encoder)
  assert table.ok.all() and list(table.images.counts) == [1, 1, 0]
  assert found["specials"]["text"] == dict.fromkeys(sorted(FRAMES), 3)
  assert found["specials"]["tokens"] == {MARKS[1]: 1, MARKS[0]: 1}
  folders = ImageFolders.of(images)
  reader = loader.Reader(table, encoder, folders, 10_000, loader.Cache(1 << 20))
  ids = dict(zip(FRAMES, encoder.tokenizer.convert_tokens_to_ids(FRAMES), strict=True))
  for row, has_image in enumerate((1, 1, 0)):
    sample, _ = reader.read(row)
    assert len(sample.images) == has_image
    assert not set(ids.values()) & set(sample.tokens.tolist())
    assert spelled in encoder.tokenizer.decode(sample.tokens)
  sample, _ = reader.read(0)
  learned = encoder.tokenizer.convert_ids_to_tokens(sample.tokens[sample.supervised])
  assert MARKS[0] in learned and MARKS[1] in learned
