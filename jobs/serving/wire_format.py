"""Requests and answers of the web service, with the bounds of what one request may ask for."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from jobs.serving.served_model import Answer

MOST_ITEMS = 500
"""Longest list of an answer."""
LONGEST_HISTORY = 5000
"""Number of items of a history at most."""
LONGEST_ID = 512
"""Characters of an item id at most."""
MOST_BYTES = 1 << 20
"""Bytes of the body of a request at most."""


def _as_text(value: Any) -> Any:
    """An integer as text; a text that no answer could hold is refused."""
    if isinstance(value, str):
        value.encode()  # UnicodeEncodeError, a ValueError: half of a pair of surrogates
    return str(value) if type(value) is int else value


ItemId = Annotated[str, Field(min_length=1, max_length=LONGEST_ID), BeforeValidator(_as_text)]


class RecommendRequest(BaseModel):
    """A request for the best items after a history."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    history: Annotated[list[ItemId], Field(max_length=LONGEST_HISTORY)]
    """Item ids, strings or integers, oldest first. The model reads the latest of them; all count as seen."""
    k: Annotated[int, Field(ge=1, le=MOST_ITEMS)] = 10
    """Number of items wanted."""
    exclude_seen: bool = True
    """Leave out all items of the history."""


class SimilarRequest(BaseModel):
    """A request for the items that are most similar to one item."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    item_id: ItemId
    """Item id, a string or an integer."""
    k: Annotated[int, Field(ge=1, le=MOST_ITEMS)] = 10
    """Number of items wanted."""


class ScoredItem(BaseModel):
    """An item of an answer."""

    item_id: str
    title: str
    score: float


class ItemsAnswer(BaseModel):
    """An answer, all of which one model computed."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    items: list[ScoredItem]
    """Best first. Empty where the catalog has none of the items that were asked about."""
    unknown_items: list[str]
    """Item ids of the request that the catalog does not have."""
    version: str
    """Name of the model."""
    fingerprint: str
    """SHA-256 over the files of the model."""

    @classmethod
    def of(cls, answer: Answer) -> ItemsAnswer:
        """The answer in the form of the web service."""
        return cls(
            items=[ScoredItem(item_id=each.item_id, title=each.title, score=each.score) for each in answer.items],
            unknown_items=answer.unknown_items,
            version=answer.model.version,
            fingerprint=answer.model.fingerprint,
        )


class Health(BaseModel):
    """A sign of life of a replica."""

    status: str
    version: str
    fingerprint: str
    items: int


class Refusal(BaseModel):
    """The answer to a request that cannot be answered."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    error: str
    """The fault, and where in the request it is."""
