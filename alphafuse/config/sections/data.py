"""The section `data`: catalog, log of interactions, split."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from alphafuse.config.base import OPERATIONAL, Added, Count, NonNegative, Section
from alphafuse.config.sections.resources import Resources


class SourceConfig(Section):
    """Files or a data set, and how they are read."""

    path: str
    """File, folder, glob or URI; `package://NAME/FILE` for data inside an installed package; `hf://NAME` for a
    Hugging Face data set (or a folder written by `save_to_disk`)."""
    format: Literal["auto", "parquet", "csv", "jsonl", "recbole", "huggingface"] = "auto"
    """Format of the files; `auto` goes by their names: .parquet, .csv/.tsv, .jsonl/.ndjson/.json (one object a line),
    .item/.inter, hf://."""
    split: str | None = None
    """Split to read of a Hugging Face data set."""
    name: Annotated[str | None, Added()] = None
    """Configuration to read of a Hugging Face data set that has several."""
    separator: Annotated[str | None, Field(min_length=1, max_length=8), Added()] = None
    """Text between two fields of `csv`: `";"`, `"\\t"`, `"|"`, `"::"`; null: tabs in .tsv, else commas."""
    encoding: Annotated[str | None, Added()] = None
    """Encoding of a text file (`csv`, `jsonl`, `recbole`): `cp1252`, `latin-1`, `utf-16`, …; null: UTF-8."""
    columns: Annotated[tuple[str, ...] | None, Field(min_length=1), Added()] = None
    """Names of the columns of `csv` files that have no header line."""

    @field_validator("separator")
    @classmethod
    def _check_separator(cls, separator: str | None) -> str | None:
        if separator is not None and re.search(r'[\r\n"\0\ufeff]', separator):
            raise ValueError("a separator holds no line ends and no quotes")
        return separator and separator.replace("\\t", "\t")  # as '\t' in single quotes of YAML, or on a command line

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, encoding: str | None) -> str | None:
        try:
            if encoding is not None:
                "a".encode(encoding)
        except LookupError as error:
            raise ValueError(
                f"{encoding!r} is no encoding of texts; examples: utf-8, cp1252, latin-1, utf-16"
            ) from error
        return encoding


class CatalogConfig(SourceConfig):
    """Source of the items and their texts."""

    item_id: str = "item_id"
    """Column of the item id (strings or integers)."""
    text: str = "{text}"
    """Template of the text given to the language model, over the columns: `"{title}. {genres}"`."""
    title: str | None = None
    """Column that recommendations and reports show; null: the beginning of the text."""


class InteractionsConfig(SourceConfig):
    """Source of the log of user-item interactions."""

    user_id: str = "user_id"
    """Column of the user id."""
    item_id: str = "item_id"
    """Column of the item id."""
    timestamp: str | None = "timestamp"
    """Column that orders a user's interactions (numbers or dates); null: the order of the rows."""
    increments: Annotated[bool, OPERATIONAL] = False
    """The files of the log are increments, in the order of their names. An update then refuses a log in which a file
    that its parent has read is missing or has changed, a file is repeated, or a new one does not come last."""


class SplitConfig(Section):
    """Protocol that says which interactions train, validate and test."""

    kind: Literal["users", "leave_one_out", "temporal", "file"] = "users"
    """`users`: whole users by `ratios` (cold-start users); `leave_one_out`: a user's last item tests, the one
    before validates; `temporal`: global time cuts by `ratios` of the interactions; `file`: users as `path` says."""
    ratios: tuple[NonNegative, NonNegative, NonNegative] = (8, 1, 1)
    """Shares of training, validation and test."""
    path: str | None = None
    """Parquet or CSV file of `kind: file` with the columns user_id and split (train, validation or test)."""
    cold_items: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the items that is held out of training: they are neither in its histories nor targets nor negatives.
    Drawn by a hash of the item id. The histories and targets of validation and test keep them."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of the draw of users (`kind: users`) and of cold items; null: the run's `seed`."""

    @model_validator(mode="after")
    def _check(self) -> SplitConfig:
        if (self.kind == "file") != (self.path is not None):
            raise ValueError("`path` is needed for kind: file, and for it alone")
        if sum(self.ratios) <= 0 or self.ratios[0] <= 0:
            raise ValueError("`ratios` need a positive share for training")
        return self


class DataConfig(Section):
    """Catalog, interactions and their split."""

    folder: str = "."
    """Folder or URI that relative paths of this section start from."""
    catalog: CatalogConfig
    interactions: InteractionsConfig
    split: SplitConfig = SplitConfig()
    min_user_interactions: Count = 2
    """Fewest interactions with known items that a user needs; users with fewer are left out (and counted)."""
    resources: Annotated[Resources, OPERATIONAL] = Resources()
    shard_rows: Count = 50_000
    """Items per shard of the workspace. A shard is the unit of work that is committed, or repeated after a failure."""
