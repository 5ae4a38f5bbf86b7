"""Recognises what is often found in place of a data file, such as an LFS pointer."""

import re

_LFS = b"version https://git-lfs.github.com/spec/"
_SIZE = re.compile(rb"^size (\d{1,18})\s*$", re.MULTILINE)
_PAGE = re.compile(rb"\s*<(!doctype html|html|head|\?xml|!--)", re.IGNORECASE)
_PACKED = {
  b"PK\x03\x04": "zip",
  b"7z\xbc\xaf\x27\x1c": "7z",
  b"\xfd7zXZ": "xz",
  b"Rar!": "rar",
}
_PICKLED = re.compile(rb"\x80[\x02-\x05](\x95|[}\]c(])")


def name_stranger(head: bytes) -> str:
  """Describes a file that cannot be read as data, and says what to do about it.

  Args:
    head: the file's first bytes, preferably a few hundred.

  Returns:
    The end of a sentence that begins with the file's path; "" if the file is not
    recognised.
  """
  if not head:
    return "the file is empty. Copy it again"
  if head.startswith(_LFS):
    match = _SIZE.search(head)
    size = f" of {int(match[1]):,} bytes" if match else ""
    return (
      f"a Git LFS pointer, which stands for a file{size} that was not fetched. Run"
      " `git lfs pull` in its repository"
    )
  if _PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
    return (
      "an HTML or XML page, which a server may send instead of a file that is missing"
      " or needs a login. Download the file again"
    )
  for magic, name in _PACKED.items():
    if head.startswith(magic):
      return f"compressed with {name}. Decompress it and give the result"
  if _PICKLED.match(head):
    return (
      "a pickle, which can run code and is never read. Write the records as JSON or"
      " Parquet"
    )
  return ""
