"""A pool format: one row per line, with id, image, question and answer between tabs."""

from mllm_selector_jax.data.formats import PoolFile
from mllm_selector_jax.types import Record


class TabFile(PoolFile):
  """Lines of four fields; the image may be empty."""

  name = "tab-separated lines"
  suffixes = (".tsv",)

  @classmethod
  def matches(cls, path, head):
    return path.endswith(".tsv")

  def records(self):
    offset = 0
    with open(self.place, "rb") as file:
      for line in file:
        yield self._parse(offset, line)
        offset += len(line)

  def read(self, offset, length):
    return self._parse(offset, self._bytes(offset, length))

  def copy(self, places, out):
    with open(out, "wb") as file:
      for offset, length in places:
        file.write(self._bytes(offset, length))

  def _bytes(self, offset, length):
    with open(self.place, "rb") as file:
      file.seek(offset)
      return file.read(length)

  def _parse(self, offset, line):
    fields = line.decode().rstrip("\n").split("\t")
    if len(fields) != 4:
      detail = f"{len(fields)} fields, not 4"
      return Record(offset, len(line), None, "malformed", detail)
    id, image, question, answer = fields
    mark = "<image>\n" if image else ""
    value = {
      "id": id,
      "conversations": [
        {"from": "human", "value": mark + question},
        {"from": "gpt", "value": answer},
      ],
    }
    return Record(offset, len(line), value | ({"image": image} if image else {}))
