"""The section `serve`: a trained model as a web service."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alphafuse.config.base import Count, Positive, Section


class ServeConfig(Section):
    """A trained model as a web service (docs/serving.md)."""

    host: str = "127.0.0.1"
    """Address to listen on. The default is reached from this machine alone; beyond it, put a proxy with TLS in front,
    since clients send a token."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    replicas: Count = 1
    """Number of processes that answer, each with a copy of the model."""
    cpus: Count = 1
    """CPUs of each replica, which one batch of requests is ranked with."""
    search: Literal["exact", "approximate"] = "exact"
    """`exact` scores every item for every request; `approximate` asks the index of the export (`export.index`), for
    catalogs of millions of items."""
    reload_seconds: Positive = 10.0
    """Seconds after which replicas look again whether another model is to be served."""
