"""An S3 server on this machine, moto's, behind a door that counts requests, delays them and lets them fail.

All of a test session share one server, which a thread of the test process runs; every test begins with an empty bucket.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import parse_qs

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from alphafuse.storage.filesystem.buckets import forget_clients

BUCKET = "bucket"
Failure = Literal["slow down", "denied", "reset", "lost answer", "truncated"]
"""How a request fails: it is refused for now (503) or for good (403); the connection breaks before anything is done, or
after it; half of the answer arrives."""
REFUSALS = {"slow down": ("503 Slow Down", "SlowDown"), "denied": ("403 Forbidden", "AccessDenied")}


@dataclass(frozen=True)
class Request:
    """A request that has come in.

    Attributes:
        kind: name of the operation in the API of S3, such as "PutObject".
        key: name of the object, or the prefix of a list.
        bytes: size of the content that was sent in answer to a "GetObject".
        status: status of the answer; 0 where it was lost.
    """

    kind: str
    key: str
    bytes: int
    status: int


@dataclass
class _Fault:
    kind: str
    failure: Failure | Callable[[], None]
    times: int
    key: str


@dataclass
class ObjectStore:
    """The server as tests see it.

    Attributes:
        address: URL of the server.
        seconds: time that every request waits.
        requests: all requests, in the order of their answers.
    """

    address: str = ""
    seconds: float = 0.0
    requests: list[Request] = field(default_factory=list)
    _faults: list[_Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, kind: str, failure: Failure | Callable[[], None], times: int = 1, key: str = "") -> None:
        """Let the next requests of a kind fail whose key contains `key`: in a way with a name, or by a function, called
        while the sender waits, after which the connection breaks and nothing is done."""
        self._faults.append(_Fault(kind, failure, times, key))

    def counts(self, key: str = "") -> Counter[str]:
        """Number of requests of each kind whose key contains `key`."""
        return Counter(request.kind for request in self.requests if key in request.key)

    def downloaded(self, key: str = "") -> int:
        """Bytes of objects that were read whose key contains `key`."""
        return sum(request.bytes for request in self.requests if key in request.key)

    @property
    def objects(self) -> dict[str, bytes]:
        """Content of all objects, by key."""
        keys = _backend().buckets[BUCKET].keys
        return {name: keys[name].value for name in list(keys)}

    def reset(self) -> None:
        """Empty the bucket, and forget requests and faults."""
        _backend().reset()
        _backend().create_bucket(BUCKET, "eu-west-1")
        self.requests.clear()
        self._faults.clear()
        self.seconds = 0.0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request (WSGI)."""
        time.sleep(self.seconds)
        kind, key = _operation(environ)
        failure = self._failure(kind, key)
        if callable(failure):
            failure()
            return self._hang_up(environ, start, kind, key)
        if failure in REFUSALS:
            status, code = REFUSALS[failure]
            body = f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()
            self.requests.append(Request(kind, key, 0, int(status[:3])))
            start(status, [("Content-Length", str(len(body))), ("Content-Type", "application/xml")])
            return [body]
        if failure == "reset":
            return self._hang_up(environ, start, kind, key)
        answer: list[Any] = []
        body = b"".join(_application()(environ, lambda status, headers, info=None: answer.extend((status, headers))))
        if failure == "lost answer":
            return self._hang_up(environ, start, kind, key)
        self.requests.append(Request(kind, key, len(body) * (kind == "GetObject"), int(answer[0][:3])))
        start(*answer)
        return [body[: len(body) // 2] if failure == "truncated" else body]

    def _failure(self, kind: str, key: str) -> Failure | Callable[[], None] | None:
        with self._lock:
            for fault in self._faults:
                if fault.times and fault.kind == kind and fault.key in key:
                    fault.times -= 1
                    return fault.failure
        return None

    def _hang_up(self, environ: dict[str, Any], start: Callable[..., Any], kind: str, key: str) -> list[bytes]:
        self.requests.append(Request(kind, key, 0, 0))
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start("200 OK", [])
        return [b""]


def _operation(environ: dict[str, Any]) -> tuple[str, str]:
    """Name and key of the operation that a request asks for."""
    key = environ["PATH_INFO"].removeprefix(f"/{BUCKET}").strip("/")
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    match environ["REQUEST_METHOD"], bool(key):
        case "GET", False:
            return "ListObjects", query.get("prefix", [""])[0]
        case "GET", True:
            return "GetObject", key
        case "HEAD", _:
            return "HeadObject" if key else "HeadBucket", key
        case "PUT", True:
            if "uploadId" in query:
                return "UploadPart", key
            return "CopyObject" if "HTTP_X_AMZ_COPY_SOURCE" in environ else "PutObject", key
        case "POST", True:
            return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload", key
        case "POST", False:
            return "DeleteObjects", key
        case "DELETE", _:
            return "DeleteObject", key
    return environ["REQUEST_METHOD"], key


@lru_cache
def _application() -> Callable[..., Iterable[bytes]]:
    application: Callable[..., Iterable[bytes]] = DomainDispatcherApplication(create_backend_app)
    return application


def _backend() -> Any:
    from moto.s3.models import s3_backends

    return s3_backends["123456789012"]["aws"]


class _Handler(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Says nothing."""

    def log_error(self, format: str, *arguments: object) -> None:
        """Says nothing: connections break on purpose."""


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Context with a server."""
    os.environ.setdefault("MOTO_S3_DEFAULT_KEY_BUFFER_SIZE", str(64 * 2**20))  # keeps objects in memory up to this size
    store = ObjectStore()
    server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=_Handler)
    store.address = f"http://127.0.0.1:{server.port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def leading_to(store: ObjectStore) -> Iterator[ObjectStore]:
    """Context in which all URIs of S3 lead to the server, emptied: `s3://bucket/…`."""
    store.reset()
    with reaching(store.address):
        yield store


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Context in which all URIs of S3 lead to the server with this address, of any process."""
    settings = {
        "ENDPOINT_URL": address,
        "DEFAULT_REGION": "eu-west-1",
        "ACCESS_KEY_ID": "key",
        "SECRET_ACCESS_KEY": "secret",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(f"AWS_{name}", value)
        forget_clients()
        try:
            yield
        finally:
            forget_clients()
