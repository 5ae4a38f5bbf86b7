"""A proxy of HTTP that spoils some of the answers, as a network and a cloud do."""

import collections
import dataclasses
import http.client
import http.server
import json
import random
import threading
import time

# Errors; and connections that are cut before the request is passed on, when it was done
# but not answered, and in the middle of the answer.
KINDS = ("503", "429", "slow", "cut before", "cut after", "cut within")
LOST = "lost upload"  # the server no longer knows an upload that has begun


@dataclasses.dataclass
class Faults:
  """What goes wrong.

  Attributes:
    share: of the requests that something happens to.
    seed: of what happens to which.
    kinds: of faults that are made.
    slow: seconds that a slow answer takes longer.
    made: how often each kind of fault was made, and "shuffled" listings.
  """

  share: float
  seed: int = 0
  kinds: tuple[str, ...] = KINDS
  slow: float = 0.5
  made: collections.Counter = dataclasses.field(default_factory=collections.Counter)

  def __post_init__(self):
    self._random = random.Random(self.seed)
    self._ended: dict[str, tuple] = {}
    self._lock = threading.Lock()

  def draw(self) -> str | None:
    """The kind of fault of the next request; None for none."""
    with self._lock:
      if self._random.random() >= self.share:
        return None
      kind = self._random.choice(self.kinds)
      self.made[kind] += 1
      return kind

  def remember(self, path: str, answer: tuple | None = None) -> tuple | None:
    """The answer that ended an upload, which a cloud gives again if it is asked."""
    with self._lock:
      if answer is not None:
        self._ended[path] = answer
      return self._ended.get(path)

  def shuffle(self, body: bytes) -> bytes:
    """The names of a listing in another order; other bodies as they are."""
    try:
      listing = json.loads(body)
      items = listing["items"]
    except (ValueError, KeyError, TypeError):
      return body
    with self._lock:
      self._random.shuffle(items)
      self.made["shuffled"] += 1
    return json.dumps(listing).encode()


class Proxy(http.server.ThreadingHTTPServer):
  """Passes requests on to a port of this machine; serves while its block runs."""

  daemon_threads = True
  request_queue_size = 128

  def __init__(self, behind: int, faults: Faults):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.behind, self.faults = behind, faults
    self.port = self.server_address[1]

  def __enter__(self):
    threading.Thread(target=self.serve_forever, daemon=True).start()
    return self

  def __exit__(self, *_):
    self.shutdown()
    self.server_close()

  def handle_error(self, request, address):
    """A client that has gone is none of the tests' business."""


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def _pass_on(self):
    body = self._read_body()
    fault = self.server.faults.draw()
    if fault == LOST and "upload_id=" in self.path:
      self._answer(404, [], b"{}")
      return
    if fault in ("503", "429"):
      self._answer(int(fault), [], b"{}")
      return
    if fault == "cut before":
      self._cut()
      return
    if fault == "slow":
      time.sleep(self.server.faults.slow)
    connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
    kept = {k: v for k, v in self.headers.items() if k.lower() not in _OF_A_CONNECTION}
    connection.request(self.command, self.path, body, kept)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    status, headers = answer.status, answer.getheaders()
    if self.command == "PUT" and "upload_id=" in self.path:
      ended = (status, headers, content) if status == 200 else None
      ended = self.server.faults.remember(self.path, ended)
      status, headers, content = ended or (status, headers, content)
    if self.command == "GET" and "/o?" in f"{self.path}?":
      content = self.server.faults.shuffle(content)
    if fault == "cut after":  # it was done, but nobody knows
      self._cut()
      return
    self._answer(status, headers, content, fault == "cut within")

  do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _pass_on

  def _read_body(self) -> bytes:
    if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
      return self.rfile.read(int(self.headers.get("Content-Length", 0)))
    body = b""
    while size := int(self.rfile.readline().split(b";")[0], 16):
      body += self.rfile.read(size)
      self.rfile.readline()
    self.rfile.readline()
    return body

  def _answer(self, status, headers, content, within=False):
    self.send_response_only(status)
    behind, port = (f"127.0.0.1:{p}" for p in (self.server.behind, self.server.port))
    for name, value in headers:
      value = value.replace(behind, port)  # where an upload goes on
      if name.lower() not in _OF_A_CONNECTION:
        self.send_header(name, value)
    self.send_header("Content-Length", str(len(content)))
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(content[: len(content) // 2] if within else content)
    if within:
      self._cut()

  def _cut(self):
    self.close_connection = True
    self.wfile.flush()
    self.connection.close()

  def log_message(self, *_):
    """Says nothing."""


_OF_A_CONNECTION = ("connection", "content-length", "host", "transfer-encoding")
