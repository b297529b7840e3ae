"""The web service: paths, checks of what comes in, and refusals that say what is wrong. Knows nothing of Ray.

Every answer is JSON. Ids and titles are texts of others: nothing here is ever a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from alphafuse.errors import shortened
from jobs.serving.gate import HEADERS, Gate
from jobs.serving.served_model import Answer, Asked
from jobs.serving.wire_format import Health, ItemsAnswer, RecommendRequest, Refusal, SimilarRequest

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FAULTS = 5
"""Number of faults of a request that a refusal names."""
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The body is no JSON."},
    401: {"model": Refusal, "description": "The token is missing or another one."},
    413: {"model": Refusal, "description": "The body is too large."},
    422: {"model": Refusal, "description": "A field is missing, unknown or out of its bounds."},
    503: {"description": "Too many requests wait."},
}


class Backend(Protocol):
    """The part that answers requests: a replica."""

    async def recommend(self, asked: Asked) -> Answer:
        """The best items after a history."""

    async def similar(self, item_id: str, k: int) -> Answer:
        """The items most similar to one."""

    def health(self) -> Health:
        """The model that answers."""

    async def metrics(self) -> bytes:
        """The metrics of all replicas, in the format of Prometheus."""

    def measured(self, path: str, status: int, seconds: float) -> None:
        """Note a request that was answered."""


def make_api(backend: Backend, digest: str) -> FastAPI:
    """Make the web service.

    Args:
        digest: SHA-256 of the token (`token_digest`).
    """
    # Without the pages of FastAPI, which load scripts from elsewhere; /openapi.json describes the service.
    api = FastAPI(title="alphafuse", version=version("alphafuse"), docs_url=None, redoc_url=None)
    api.add_middleware(Gate, digest=digest, measured=backend.measured)
    api.add_exception_handler(RequestValidationError, _refuse_fields)
    api.add_exception_handler(HTTPException, _refuse)
    api.add_exception_handler(Exception, _fail)
    guarded: dict[str, Any] = {"responses": REFUSALS, "dependencies": [Depends(HTTPBearer(auto_error=False))]}

    @api.post("/recommend", **guarded)
    async def recommend(request: RecommendRequest, response: Response) -> ItemsAnswer:
        """The best items after a history."""
        response.headers.update(HEADERS)
        return ItemsAnswer.of(await backend.recommend(Asked(request.history, request.k, request.exclude_seen)))

    @api.post("/similar", **guarded)
    async def similar(request: SimilarRequest, response: Response) -> ItemsAnswer:
        """The items that are most similar to one item."""
        response.headers.update(HEADERS)
        return ItemsAnswer.of(await backend.similar(request.item_id, request.k))

    @api.get("/healthz")
    async def healthz() -> Health:
        """The model that a replica serves."""
        return backend.health()

    @api.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """The metrics of all replicas, in the format of Prometheus."""
        return Response(await backend.metrics(), media_type=METRICS_TYPE)

    return api


async def _refuse_fields(request: Request, error: Exception) -> JSONResponse:
    """Name the faulty fields. Their values are not repeated: they may be of any size."""
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return JSONResponse({"error": "the body is no JSON"}, status_code=400, headers=HEADERS)
    named = [f"{_place(fault['loc'])}: {fault['msg']}" for fault in faults[:FAULTS]]
    more = [f"and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
    return JSONResponse({"error": shortened("; ".join([*named, *more]))}, status_code=422, headers=HEADERS)


def _place(parts: Sequence[Any]) -> str:
    """The place of a fault in the body: `history.3`. Names of unknown fields are the client's, of any length."""
    named = ".".join(str(part)[:64] for part in parts[1:])
    return named.encode("ascii", "backslashreplace").decode() or "body"


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = {**HEADERS, **(error.headers or {})}
    return JSONResponse({"error": str(error.detail)}, status_code=error.status_code, headers=headers)


async def _fail(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "the service has failed; its log tells why"}, status_code=500, headers=HEADERS)
