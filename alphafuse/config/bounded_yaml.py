"""Reads YAML that may be hostile or damaged: of bounded size, with whatever its aliases expand to.

A few lines of aliases can stand for 10^9 values. They are counted before any value is made, so that no reader hangs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from alphafuse.errors import ConfigError

MOST_BYTES = 1 << 20
"""Largest file that is read: a configuration has some kilobytes."""
MOST_VALUES = 100_000
"""Most values that a file may stand for, aliases expanded."""
MOST_DEPTH = 50
"""Most sections inside of each other."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Besides YAML's own errors, PyYAML raises these for values such as `!!int x`, `!!bool x`, `!!timestamp x`, 2026-99-99.
_MALFORMED = (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError)


def load_yaml(content: bytes | str, name: object) -> Any:
    """The plain values of a YAML document; None if it is empty.

    Args:
        content: the document; at most `MOST_BYTES` are read.
        name: name of its file, for messages.

    Raises:
        ConfigError: the document is too large, or is not valid YAML.
    """
    documents = list(load_yaml_documents(content, name))
    if len(documents) > 1:
        raise ConfigError(f"{name} is not valid YAML: it holds {len(documents)} documents instead of one")
    return documents[0] if documents else None


def load_yaml_documents(content: bytes | str, name: object) -> Iterator[Any]:
    """Yield the plain values of each document of a YAML file; see `load_yaml`."""
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{name} is larger than {MOST_BYTES >> 20} MiB: it is not read")
    try:
        text = content.decode() if isinstance(content, bytes) else content
        _require_flat(text, name)
        loader = _LOADER(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                _require_few_values(node, name)
                yield loader.construct_document(node)
        finally:
            loader.dispose()
    except _MALFORMED as error:
        raise ConfigError(f"{name} is not valid YAML: {str(error) or type(error).__name__}") from error


def compose(content: bytes) -> yaml.Node | None:
    """The nodes of a document that `load_yaml` has read, for `line_of`; None if it is empty."""
    root: yaml.Node | None = yaml.compose(content, Loader=_LOADER)
    return root


def line_of(node: yaml.Node | None, keys: Sequence[str]) -> int | None:
    """The line, counted from 1, of the deepest of nested keys that stands below a node; None where even the first one
    does not. Entries of lists are keys by their number."""
    line = None
    for key in keys:
        found = None
        if isinstance(node, yaml.MappingNode):
            found = next(((name, value) for name, value in node.value if name.value == key), None)
        elif isinstance(node, yaml.SequenceNode) and key.isdecimal() and int(key) < len(node.value):
            found = (node.value[int(key)],) * 2
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _require_flat(text: str, name: object) -> None:
    """Check the depth of the sections, by the events of the parser: its nodes are made by recursion in C, which would
    end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise ConfigError(f"{name} is nested deeper than {MOST_DEPTH} levels: it is not read")


def _require_few_values(root: yaml.Node, name: object) -> None:
    """Check the number of values that a document stands for; visits every node once."""
    counts: dict[int, int] = {}
    open_nodes: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting[-1]
        inner = [] if id(node) in counts else _inner(node)
        if id(node) not in open_nodes and id(node) not in counts and inner:
            open_nodes.add(id(node))
            if any(id(child) in open_nodes for child in inner):
                raise ConfigError(f"{name}: an alias stands inside of what it names")
            waiting += inner
            continue
        waiting.pop()
        open_nodes.discard(id(node))
        counts.setdefault(id(node), 1 + sum(counts[id(child)] for child in inner))
    if counts[id(root)] > MOST_VALUES:
        raise ConfigError(f"{name} stands for {counts[id(root)]:,} values, more than {MOST_VALUES:,}: it is not read")


def _inner(node: yaml.Node) -> list[yaml.Node]:
    """Keys and values of a mapping, or the entries of a sequence."""
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
