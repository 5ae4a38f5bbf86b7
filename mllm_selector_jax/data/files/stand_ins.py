"""Names what is often found where data should be: not the file, but its stand-in."""

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
  """What a file is that cannot be read as data, and what to do about it.

  Args:
    head: the file's first bytes, a few hundred at best.

  Returns:
    The end of a sentence that begins with the file's path; "" for anything else.
  """
  if not head:
    return "the file is empty. Copy it again"
  if head.startswith(_LFS):
    found = _SIZE.search(head)
    size = f" of {int(found[1]):,} bytes" if found else ""
    return (
      f"a Git LFS pointer, which stands for a file{size} that was not fetched. Run"
      " `git lfs pull` in its repository"
    )
  if _PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
    return (
      "an HTML or XML page, as a server sends it in place of a file that is not there"
      " or needs a login. Fetch the file again"
    )
  for magic, name in _PACKED.items():
    if head.startswith(magic):
      return f"packed with {name}. Unpack it and give the result"
  if _PICKLED.match(head):
    return (
      "a pickle, which can run code and is never read. Write the records as JSON or"
      " Parquet"
    )
  return ""
