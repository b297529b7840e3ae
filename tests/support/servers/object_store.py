"""An object store on this machine that speaks as much of S3 as small files need, with conditional writes.

Puts with `If-None-Match: *` are refused where the object exists, as AWS does since 2024 (user guide of S3, "How to
prevent object overwrites with conditional writes").
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest


class ObjectStore(ThreadingHTTPServer):
    """The server; objects by path.

    Attributes:
        refused: number of conditional writes that found an object.
        lost_answers: number of next writes whose answer gets lost after the object was written.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.refused = 0
        self.lost_answers = 0


@contextmanager
def object_store(patch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """An object store that all URIs of S3 lead to, `s3://bucket/…`, until the block ends."""
    server = ObjectStore()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {"ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "DEFAULT_REGION": "eu-west-1"}
    for name, value in {**settings, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}.items():
        patch.setenv(f"AWS_{name}", value)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ObjectStore
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        content = self._body()
        with self.server.lock:
            exists = self._key in self.server.objects
            if exists and self.headers.get("If-None-Match") == "*":
                self.server.refused += 1
                self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
                return
            self.server.objects[self._key] = content
            lost, self.server.lost_answers = self.server.lost_answers > 0, max(0, self.server.lost_answers - 1)
        if lost:
            self._answer(503, b"<Error><Code>ServiceUnavailable</Code></Error>")
        else:
            self._answer(200, headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list(query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
            return
        content = self.server.objects.get(self._key)
        if content is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        if part := self.headers.get("Range"):
            first, _, last = part.removeprefix("bytes=").partition("-")
            content = content[int(first) : int(last) + 1 if last else None]
        self._answer(206 if part else 200, content, {"Last-Modified": "Sun, 29 Nov 2026 12:00:00 GMT"})

    def do_HEAD(self) -> None:
        content = self.server.objects.get(self._key)
        found = content is not None or self._key == "bucket"
        length = {"Content-Length": str(len(content or b"")), "Last-Modified": "Sun, 29 Nov 2026 12:00:00 GMT"}
        self._answer(200 if found else 404, headers=length)

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def _list(self, prefix: str, delimiter: str) -> None:
        found, folders = [], set()
        for name, content in sorted(self.server.objects.items()):
            key = name.removeprefix("bucket/")
            if key.startswith(prefix):
                inner = key.removeprefix(prefix).split(delimiter)[0] if delimiter else key
                if delimiter and delimiter in key.removeprefix(prefix):
                    folders.add(prefix + inner + delimiter)
                else:
                    found.append(
                        f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
                        "<LastModified>2026-11-29T12:00:00.000Z</LastModified></Contents>"
                    )
        prefixes = [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)]
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(found + prefixes)}"
        body += f"<KeyCount>{len(found) + len(folders)}</KeyCount></ListBucketResult>"
        self._answer(200, body.encode())

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""
