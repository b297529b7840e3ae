"""Everything that a run reads beside its configuration, checked in seconds before the run begins.

Headers, schemas and first rows are read, by the functions that the stages call themselves. Knows nothing of jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from alphafuse.config import Config, EmbedConfig
from alphafuse.data.importers.source import Source
from alphafuse.data.preparation.sources import find_catalog, find_interactions, find_split
from alphafuse.data.users import find_users
from alphafuse.language.models.language_model import LanguageModel
from alphafuse.language.precomputed import find_precomputed
from alphafuse.stages import EMBED, PREPARE, RECOMMEND, Stage
from alphafuse.storage.filesystem.folder import resolve


@dataclass(frozen=True)
class Input:
    """Something that a run reads.

    Attributes:
        key: key of its path in the configuration.
        uri: where it lies: URI or absolute path, or a name on a hub.
        check: finds its files and checks their first rows; raises `ConfigError` or `DataError`.
    """

    key: str
    uri: str
    check: Callable[[], Sequence[Source]]


def inputs_of(config: Config, stages: Sequence[Stage]) -> list[Input]:
    """List what some stages read from outside of the workspace."""
    data, embed, users = config.data, config.embed, config.recommend.users
    found: list[Input] = []

    def add(key: str, path: str, check: Callable[[], Sequence[Source]]) -> None:
        found.append(Input(key, path if "://" in path else resolve(path, data.folder), check))

    if PREPARE in stages:
        add("data.catalog.path", data.catalog.path, lambda: find_catalog(data).sources)
        add("data.interactions.path", data.interactions.path, lambda: find_interactions(data).sources)
        if data.split.path is not None:
            add("data.split.path", data.split.path, partial(find_split, data))
    if EMBED in stages and embed.precomputed is not None:
        add("embed.precomputed", embed.precomputed, lambda: find_precomputed(embed, data.folder).vectors)
    elif EMBED in stages:
        found.append(Input("embed.model", embed.model, partial(_look_at_model, embed)))
    if RECOMMEND in stages and users is not None:
        found.append(Input("recommend.users", resolve(users), partial(find_users, resolve(users))))
    return found


def check_inputs(config: Config, stages: Sequence[Stage]) -> dict[str, Sequence[Source]]:
    """Check what some stages read.

    Returns:
        The files that were found, by the key of their path.

    Raises:
        ConfigError: the text template is malformed, or the language model is not there.
        DataError: a source is missing, damaged, lacks columns, or has one of another type.
    """
    return {each.key: each.check() for each in inputs_of(config, stages)}


def _look_at_model(config: EmbedConfig) -> Sequence[Source]:
    LanguageModel.of(config).look()
    return ()
