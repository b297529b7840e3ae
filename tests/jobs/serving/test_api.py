"""The web service over HTTP, in one process: who is let in, what is refused, and how."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from alphafuse.evaluation.recommendations import Recommended
from jobs.serving import wire_format
from jobs.serving.api import make_api
from jobs.serving.gate import token_digest
from jobs.serving.model_source import Location
from jobs.serving.served_model import Answer, Asked
from jobs.serving.wire_format import Health

MODEL = Location("v0007", "somewhere", "f" * 64)
HOSTILE = '<script>alert("1")</script>\x1b[2J\u2028'
TOKEN = {"Authorization": "Bearer secret"}


class Backend:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.measured_requests: list[tuple[str, int]] = []
        self.fails = False

    async def recommend(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        if self.fails:
            raise RuntimeError("a secret of the machine")
        return Answer([Recommended("12", HOSTILE, 0.5)], [HOSTILE], MODEL)

    async def similar(self, item_id: str, k: int) -> Answer:
        self.asked.append((item_id, k))
        return Answer([], [item_id], MODEL)

    def health(self) -> Health:
        return Health(status="ok", version=MODEL.version, fingerprint=MODEL.fingerprint, items=3)

    async def metrics(self) -> bytes:
        return b"alphafuse_serve_batches_total 1.0\n"

    def measured(self, path: str, status: int, seconds: float) -> None:
        self.measured_requests.append((path, status))


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def client(backend: Backend) -> Iterator[TestClient]:
    with TestClient(make_api(backend, token_digest("secret")), raise_server_exceptions=False) as client:
        yield client


def test_answers_are_json_with_the_model_that_made_them(client: TestClient, backend: Backend) -> None:
    answer = client.post("/recommend", json={"history": ["3", 12], "k": 2}, headers=TOKEN)
    assert answer.status_code == 200
    assert answer.json() == {
        "items": [{"item_id": "12", "title": HOSTILE, "score": 0.5}],
        "unknown_items": [HOSTILE],
        "version": "v0007",
        "fingerprint": "f" * 64,
    }
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert backend.asked == [Asked(["3", "12"], 2, True)]
    client.post("/similar", json={"item_id": 5}, headers=TOKEN)
    assert backend.asked[1] == ("5", 10)


def test_nobody_gets_in_without_the_token(client: TestClient, backend: Backend) -> None:
    wrong = ["Bearer other", "Bearer", "Basic secret", "secret", "Bearer secrets"]
    for headers in ({}, *({"Authorization": each} for each in wrong)):
        for path in ("/recommend", "/similar"):
            answer = client.post(path, content=b"{", headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "Authorization: Bearer TOKEN" in answer.json()["error"]
    assert backend.asked == []
    for path in ("/healthz", "/metrics", "/openapi.json"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_large_body_is_not_read(client: TestClient, backend: Backend, in_pieces: bool) -> None:
    read = []

    def pieces() -> Iterator[bytes]:
        for _ in range(64):
            read.append(1)
            yield b" " * (wire_format.MOST_BYTES // 16)

    content = pieces() if in_pieces else b" " * (wire_format.MOST_BYTES + 1)
    answer = client.post("/recommend", content=content, headers=TOKEN)
    assert answer.status_code == 413
    assert answer.json() == {"error": "the body has more than 1,048,576 bytes"}
    assert backend.asked == []


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"history": [' + b"9" * 5000 + b"]}"])
def test_what_is_no_json_is_refused(client: TestClient, backend: Backend, body: bytes) -> None:
    answer = client.post("/recommend", content=body, headers={**TOKEN, "Content-Type": "application/json"})
    assert answer.status_code == (400 if body else 422)
    assert answer.json().keys() == {"error"}
    assert backend.asked == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "history: Field required"),
        ([], "body: "),
        ({"history": "3"}, "history: Input should be a valid list"),
        ({"history": [4.5]}, "history.0: Input should be a valid string"),
        ({"history": [True]}, "history.0: Input should be a valid string"),
        ({"history": [None]}, "history.0: Input should be a valid string"),
        ({"history": [""]}, "history.0: String should have at least 1 character"),
        ({"history": ["x" * 513]}, "history.0: String should have at most 512 characters"),
        ({"history": ["3"] * 5001}, "history: List should have at most 5000 items"),
        ({"history": ["3"], "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"history": ["3"], "k": 501}, "k: Input should be less than or equal to 500"),
        ({"history": ["3"], "k": 10**30}, "k: "),
        ({"history": ["3"], "top": 3}, "top: Extra inputs are not permitted"),
        ({"history": ["\ud800"]}, "history.0: Value error"),
        ({"history": ["3"], "\ud800": 3}, "unable to parse raw data as a unicode string"),
        ({"history": [[]] * 5000}, "and 4995 more"),
    ],
    ids=range(16),
)
def test_fields_out_of_their_bounds_are_named(client: TestClient, backend: Backend, body: Any, message: str) -> None:
    content = json.dumps(body).encode()
    answer = client.post("/recommend", content=content, headers={**TOKEN, "Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert message in answer.json()["error"]
    assert len(answer.content) < 4000
    assert backend.asked == []


def test_other_paths_and_failures(client: TestClient, backend: Backend) -> None:
    for path in ("/nothing", "/recommend/", "//recommend", "/v1/recommend", "/docs"):
        assert client.post(path, json={"history": ["3"]}, follow_redirects=False).status_code == 401
    assert client.get("/nothing", headers=TOKEN).json() == {"error": "Not Found"}
    assert client.get("/recommend", headers=TOKEN).status_code == 405
    assert client.get("/docs", headers=TOKEN).status_code == 404  # a page that would load scripts from elsewhere
    backend.fails = True
    answer = client.post("/recommend", json={"history": ["3"]}, headers=TOKEN)
    assert answer.status_code == 500
    assert answer.json() == {"error": "the service has failed; its log tells why"}
    assert backend.measured_requests == [("/recommend", 405), ("/recommend", 500)]


def test_openapi_tells_paths_bounds_and_the_token(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert described["paths"].keys() == {"/recommend", "/similar", "/healthz", "/metrics"}
    asked = described["components"]["schemas"]["RecommendRequest"]["properties"]
    assert asked["history"]["maxItems"] == wire_format.LONGEST_HISTORY
    assert asked["k"]["maximum"] == wire_format.MOST_ITEMS
    assert described["paths"]["/recommend"]["post"]["security"] == [{"HTTPBearer": []}]
