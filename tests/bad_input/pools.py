"""Records and pictures for pools that are written on the spot."""

import io
import json

from PIL import Image


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
